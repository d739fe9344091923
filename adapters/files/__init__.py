"""What an adapter's files may hold, and how they are looked at before anybody else sees them."""
