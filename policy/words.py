"""A mission read word by word, by an encoder that is trained with the rest: `lang_encoder: words`.

Nothing is told about the grammar: words are numbers, and what they mean together is learned, as in BabyAI's own agents
(an embedding and a GRU: Chevalier-Boisvert et al. 2019, arXiv 1810.08272). This is the definition, in plain PyTorch; on
the CPU it runs compiled (`policy.compiled.words`), equal to it by test.
"""

import re
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from basics.errors import UserError, did_you_mean
from policy.missions import MissionEncoder

WORDS = (
    "a after and ball behind blue box door front go green grey in key left next object of on open pick purple put red"
    " right the then to up yellow you your ,"
)
VOCABULARY = WORDS.split()
NUMBERS = {word: number for number, word in enumerate(VOCABULARY, 1)}  # 0 is no word
MOST_WORDS = 72  # in a mission: "put a red ball in front of you next to a red box in front of you" four times, joined


def word_numbers(mission: str) -> list[int]:
    """Return the numbers of a mission's words; a comma is one.

    Raises:
        UserError: there is a word that is not in the vocabulary, or there are none or too many.
    """
    words = re.findall(r"\w+|[^\w\s]", mission)
    for word in words:
        if word not in NUMBERS:
            raise UserError(
                f"lang_encoder words: {word!r} of the mission {mission!r} is not in its vocabulary"
                f" (policy/words.py).{did_you_mean(word, VOCABULARY)} A sentence encoder may know it"
            )
    if not 0 < len(words) <= MOST_WORDS:
        raise UserError(f"lang_encoder words: the mission {mission!r} has {len(words)} words, not 1 to {MOST_WORDS}")
    return [NUMBERS[word] for word in words]


class WordNumbers(MissionEncoder):
    """Missions as the numbers of their words, zeros after the last; `WordReader` makes sense of them."""

    name, embed_dim = "words", MOST_WORDS

    def embed(self, missions: Iterable[str]) -> np.ndarray:
        numbers = [word_numbers(mission) for mission in missions]
        padded = [words + [0] * (MOST_WORDS - len(words)) for words in numbers]
        return np.array(padded, np.float32).reshape(-1, MOST_WORDS)


class WordReader(nn.Module):
    """Words -> embedding -> GRU; learned queries pool the GRU's states over the mission, by attention.

    Attributes:
        size: what comes out, the pooled state of each query and the last state, side by side.
    """

    def __init__(self, embedding_size: int = 32, hidden_size: int = 64, queries: int = 4):
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY) + 1, embedding_size, padding_idx=0)
        self.gru = nn.GRU(embedding_size, hidden_size, batch_first=True)
        self.query = nn.Linear(hidden_size, queries, bias=False)
        self.size = (queries + 1) * hidden_size

    def forward(self, numbers: Tensor) -> Tensor:
        """Word numbers [M, MOST_WORDS], as `WordNumbers` gives them -> [M, size]."""
        numbers = numbers.long()
        is_word = numbers > 0
        states, _ = self.gru(self.embedding(numbers))  # what comes after a mission's last word is left out below
        weights = self.query(states).masked_fill(~is_word[..., None], -torch.inf).softmax(1)
        pooled = weights.mT @ states
        last = states[torch.arange(len(states)), is_word.sum(1) - 1]
        return torch.cat([pooled.flatten(1), last], dim=1)
