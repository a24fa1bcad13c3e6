"""Forward migrations: numbered SQL files, applied in order under an advisory lock."""

from engine.store.migrations.migrate import MIGRATIONS, SCHEMA_VERSION, Migration, check_schema, migrate

__all__ = ["MIGRATIONS", "SCHEMA_VERSION", "Migration", "check_schema", "migrate"]
