"""Sizes of stored responses."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("responses", sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE responses SET bytes = length(CAST(items AS TEXT)) + length(CAST(body AS TEXT))")


def downgrade() -> None:
    op.drop_column("responses", "bytes")
