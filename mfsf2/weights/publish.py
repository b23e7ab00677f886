"""Publish a model on the Hugging Face Hub."""

import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from .card import CARD_NAME, may_write_card
from .save import unwrap, write_folder

__all__ = ["push_to_hub"]

# As the Hub writes them: lower case, e.g. "cc-by-nc-4.0".
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    license: str,
    label_names: Sequence[str] | None = None,
    *,
    description: str | None = None,
    token: str | None = None,
    revision: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    commit_message: str = "Add model",
) -> str:
    """Publish a model on the Hugging Face Hub: what :func:`save_pretrained` writes, in one commit.

    The repository is created if it does not exist. An existing ``README.md`` is only replaced if it has the line that
    marks a generated one. ``create_model(f"hf-hub:{repo_id}")`` loads the model; models named ``*_cls`` for one image
    also load through ``timm.create_model`` after ``import mfsf2.timm_models``.

    Args:
        model: as for :func:`save_pretrained`.
        repo_id: ``OWNER/NAME``.
        license: the Hub's identifier of the license of the weights, e.g. ``"apache-2.0"``, ``"cc-by-nc-4.0"``,
            ``"other"``. It often follows from the images that the model was trained on.
        label_names: class names in the order of the classes, for masks those of their channels; None if the model
            has them, and they still belong to its classifier.
        description: a sentence or more for the model card, e.g. on the data and the training.
        token: access token with permission to write; None for that of ``hf auth login``.
        revision: branch; None for the main one.
        private: whether a new repository is private.
        create_pr: open a pull request instead of committing to the branch.
        commit_message: title of the commit.

    Returns:
        URL of the commit.

    Raises:
        TypeError, ValueError: as :func:`save_pretrained`; not an identifier of a license; or no names of the classes.
            Nothing is uploaded.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    if not isinstance(repo_id, str) or repo_id.count("/") != 1:
        raise ValueError(f"repo_id={repo_id!r} is not the name of a repository: use OWNER/NAME")
    validate_repo_id(repo_id)
    model = unwrap(model)
    if not isinstance(license, str) or not _LICENSE.fullmatch(license):
        raise ValueError(
            f"license={license!r} is not a license identifier of the Hub: use 'apache-2.0', 'cc-by-nc-4.0', 'other' ..."
        )
    _warn_of_license(model, license)
    cfg = {"license": license, **({} if description is None else {"description": description})}
    api = HfApi(token=token, library_name="mfsf2")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = write_folder(model, folder, label_names, repo_id.split("/")[-1], f"hf-hub:{repo_id}", **cfg)
        if not names and model.num_classes:
            raise ValueError(
                f"push_to_hub needs label_names=[...], the names of the {model.num_classes} classes in their order"
            )
        api.create_repo(repo_id, private=private, exist_ok=True)
        if api.file_exists(repo_id, CARD_NAME, revision=revision):
            there = api.hf_hub_download(repo_id, CARD_NAME, revision=revision, cache_dir=folder / "cache")
            if not may_write_card(Path(there)):
                (folder / CARD_NAME).unlink()
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            allow_patterns=["*.json", "*.safetensors", "*.md"],
            ignore_patterns=["cache/*"],
        )
    return str(commit.commit_url)


def _warn_of_license(model: nn.Module, license: str) -> None:
    """A model that was trained from weights under another license may have to keep it."""
    before = getattr(model, "pretrained_cfg", {}).get("license")
    if before not in (None, license, "apache-2.0"):
        warnings.warn(
            f"license={license!r}, but the model or the weights that it started from are under {before!r}: make sure "
            "that it may be published under another license",
            UserWarning,
            stacklevel=3,
        )
