"""The migrations of the database schema, as files."""

from alembic.script import ScriptDirectory

from infra.database import revisions


def test_migrations_are_a_chain_in_the_order_of_their_numbers() -> None:
    """Two branches of work may take the same number. Alembic then refuses to upgrade any database."""
    scripts = ScriptDirectory(str(revisions.FOLDER))
    assert len(scripts.get_heads()) == 1
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == [f"{number:04}" for number in range(len(numbers), 0, -1)]
    assert set(numbers) == revisions.KNOWN
    assert [revisions.is_of_later_release(each) for each in (None, numbers[0], "9999")] == [False, False, True]
