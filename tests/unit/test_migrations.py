"""The migrations of the database schema, as files."""

from pathlib import Path

from alembic.script import ScriptDirectory

from infra.database import migrate


def test_migrations_are_a_chain_in_the_order_of_their_numbers() -> None:
    """Two branches of work may take the same number. Alembic then refuses to upgrade any database."""
    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert len(scripts.get_heads()) == 1
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == [f"{number:04}" for number in range(len(numbers), 0, -1)]
