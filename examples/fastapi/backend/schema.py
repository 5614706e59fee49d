"""Makes the tables, as the backends' own migrations would: python3 -m backend.schema"""

from sqlalchemy import text

from . import models
from .db import Base, engine

REVISION = "5c1d0f6a9b21"


def upgrade() -> None:
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
        connection.execute(
            text("INSERT INTO alembic_version VALUES (:revision) ON CONFLICT DO NOTHING"), {"revision": REVISION}
        )


if __name__ == "__main__":
    upgrade()
    print("tables:", ", ".join(sorted(models.Base.metadata.tables)))
