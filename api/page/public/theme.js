// Runs before the first paint, so that a remembered theme does not flash in the other one; src/theme.ts does the rest.
try {
  const choice = localStorage.getItem("vibezen.theme");
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
} catch {
  // Storage may be refused; the system's theme then stays.
}
