"""Aliases, and adapters pinned in memory."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("adapters", sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("base_model", sa.String(256), nullable=False),
        sa.Column("weights", sa.JSON, nullable=False),
        sa.Column("previous", sa.JSON),
        sa.Column("owned_by", sa.String(256), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("aliases")
    op.drop_column("adapters", "pinned")
