"""What an adapter's files may hold, and how they are checked before anything else reads them."""
