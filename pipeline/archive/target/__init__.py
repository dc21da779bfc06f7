"""The container an archive is built for, and the packages it brings because that container lacks them."""
