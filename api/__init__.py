"""Everything that serves: HTTP, server-sent events, WebSocket and the page."""
