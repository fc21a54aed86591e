"""The routes by families: each module has those of one noun."""
