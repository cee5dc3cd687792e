"""The list of ``mutants.py`` is of this program: the faults themselves are planted by that script, not here."""

from mutants import ALLOWED, MOST_ALLOWED, MUTANTS, ROOT, Mutant


def test_every_fault_has_its_place():
    """Whoever changes one of these lines changes the list with it."""
    stale = [f"{mutant.name} ({mutant.file})" for mutant in MUTANTS if mutant.is_stale()]
    assert not stale


def test_every_fault_changes_something_and_has_tests():
    for mutant in MUTANTS:
        assert mutant.old != mutant.new and mutant.tests, mutant.name
        assert all((ROOT / test).is_file() for test in mutant.tests), mutant.name


def test_names_are_unique_and_few_may_survive():
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) and set(ALLOWED) <= set(names)
    assert len(ALLOWED) <= MOST_ALLOWED and all(ALLOWED.values())


def test_stale_faults_are_told(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\ny = 1\n")
    places = [("x = 1", False), ("= 1", True), ("z = 1", True)]
    assert all(Mutant("m", "a.py", old, "", ()).is_stale(tmp_path) == stale for old, stale in places)
    assert Mutant("m", "b.py", "x", "", ()).is_stale(tmp_path)
