"""The mutants themselves: `make mutants` can only tell what tests are worth while each patch applies."""

import shutil

import pytest

from tests.support.mutants import PRODUCT, ROOT, Mutant, apply, changed, has_test, mutants


def test_there_are_mutants() -> None:
    assert len(mutants()) >= 30


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_mutant_applies_to_one_file_of_the_product_and_names_a_test(mutant: Mutant) -> None:
    (file,) = changed(mutant)
    assert file.startswith(PRODUCT)
    assert has_test(mutant, ROOT), f"there is no {mutant.test}"
    if not (shutil.which("git") or shutil.which("patch")):
        pytest.skip("neither git nor patch here")
    assert apply(mutant, ROOT, dry=True) == "", "make the patch anew: what it takes out has changed"
