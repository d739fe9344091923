"""Methods, gates and integrations of jobs; uploads in parts; files that expire; checkpoint permissions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_OLD_METHOD = '{"type": "supervised"}'


def upgrade() -> None:
    for column in (
        sa.Column("parent", sa.String(256)),
        sa.Column("retention_file", sa.String(64)),
        sa.Column("method", sa.JSON, nullable=False, server_default=_OLD_METHOD),
        sa.Column("gate", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("accept_findings", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("integrations", sa.JSON, nullable=False, server_default="[]"),
    ):
        op.add_column("jobs", column)
    op.add_column("files", sa.Column("expires_at", sa.BigInteger))
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("file_expires_after", sa.BigInteger),
        sa.Column("file_id", sa.String(64)),
    )
    op.create_table(
        "checkpoint_permissions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("checkpoint", sa.String(256), nullable=False, index=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("checkpoint", "project_id"),
    )


def downgrade() -> None:
    op.drop_table("checkpoint_permissions")
    op.drop_table("uploads")
    op.drop_column("files", "expires_at")
    for column in ("integrations", "accept_findings", "gate", "method", "retention_file", "parent"):
        op.drop_column("jobs", column)
