"""Sharing on the Hugging Face Hub: what a repository holds, its model card, and the upload."""

from .files import RepositoryFile, repository_files, size_text, total_size
from .push import prepared, push_files, push_folder

__all__ = [
    "RepositoryFile",
    "prepared",
    "push_files",
    "push_folder",
    "repository_files",
    "size_text",
    "total_size",
]
