"""One SQL database for all of Tuneport's state: SQLite in the data folder by default, another server by URL."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

BUSY_TIMEOUT_SECONDS = 30


def connect(url: str) -> Engine:
    """Open the database at a SQLAlchemy URL.

    SQLite runs in WAL mode, so that readers and the one writer do not wait for each other, and with full
    synchronisation, so that committed data survive a power cut.
    """
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})

    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def migrate(engine: Engine, versions: Path, version_table: str) -> None:
    """Bring a package's tables to the newest version.

    Args:
        versions: folder of the Alembic scripts of the package that owns the tables.
        version_table: table that holds the version; each package has its own, so neither needs the other's scripts.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(versions).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes.update(connection=connection, version_table=version_table)
        command.upgrade(config, "head")
