"""numpy's random numbers, compiled: the stream that `np.random.default_rng(seed)` draws from, bit for bit.

minigrid takes all the randomness of a level from two methods of numpy's `Generator`: `integers(low, high)` and
`uniform(0, 1)`. Behind them stand `SeedSequence`, which makes four words of 64 bits from a seed, and `PCG64`, a linear
congruential generator of 128 bits with a permuted output (O'Neill, "PCG: A Family of Simple Fast Space-Efficient
Statistically Good Algorithms for Random Number Generation", 2014, variant XSL-RR 128/64).

A 128-bit number is two words here, high and low. All constants are `np.uint64`: numba turns an operation of an unsigned
with a signed integer into one of floats.
"""

import numpy as np
from numba import njit

RANDOM = np.dtype(
    [
        ("state_high", np.uint64),
        ("state_low", np.uint64),
        ("increment_high", np.uint64),
        ("increment_low", np.uint64),
        ("half", np.uint64),  # the upper 32 bits of the last word of which only the lower were used
        ("has_half", np.uint8),
        ("pool", np.uint64, 4),  # of SeedSequence, while a stream is begun
    ],
    align=True,
)

NO_BITS, ONE, ELEVEN, SIXTEEN, THIRTY_TWO = (np.uint64(value) for value in (0, 1, 11, 16, 32))
SIXTY_THREE, SIXTY_FOUR, TOP_SHIFT = np.uint64(63), np.uint64(64), np.uint64(58)
MASK = np.uint64(0xFFFFFFFF)

# SeedSequence
INIT_A, MULT_A = np.uint64(0x43B0D7E5), np.uint64(0x931E8875)
INIT_B, MULT_B = np.uint64(0x8B51F9DD), np.uint64(0x58F38DED)
MIX_MULT_L, MIX_MULT_R = np.uint64(0xCA01F9DD), np.uint64(0x4973F715)
POOL_SIZE = 4

# PCG64
MULTIPLIER_HIGH, MULTIPLIER_LOW = np.uint64(2549297995355413924), np.uint64(4865540595714422341)
DOUBLE_UNIT = 1.0 / 9007199254740992.0  # 2**-53


@njit(cache=True)
def multiply(a, b):
    """Return the high and the low word of the product of two words."""
    a_high, a_low = a >> THIRTY_TWO, a & MASK
    b_high, b_low = b >> THIRTY_TWO, b & MASK
    low = a_low * b_low
    middle = a_high * b_low + (low >> THIRTY_TWO)
    other_middle = a_low * b_high + (middle & MASK)
    high = a_high * b_high + (middle >> THIRTY_TWO) + (other_middle >> THIRTY_TWO)
    return high, a * b


@njit(cache=True)
def advance(random):
    """Take the generator's state one step further: state * MULTIPLIER + increment, modulo 2**128."""
    high, low = multiply(random.state_low, MULTIPLIER_LOW)
    high += random.state_high * MULTIPLIER_LOW + random.state_low * MULTIPLIER_HIGH
    random.state_low = low + random.increment_low
    carry = ONE if random.state_low < low else NO_BITS
    random.state_high = high + random.increment_high + carry


@njit(cache=True)
def next_word(random):
    """Return the next 64 random bits."""
    advance(random)
    word = random.state_high ^ random.state_low
    turn = random.state_high >> TOP_SHIFT
    return (word >> turn) | (word << ((SIXTY_FOUR - turn) & SIXTY_THREE))


@njit(cache=True)
def next_half(random):
    """Return the next 32 random bits: the lower half of a word, then its upper half."""
    if random.has_half:
        random.has_half = False
        return random.half
    word = next_word(random)
    random.has_half = True
    random.half = word >> THIRTY_TWO
    return word & MASK


@njit(cache=True)
def integers(random, low, high):
    """Return an integer from `low` to `high` - 1, as `Generator.integers` does for spans below 2**32: by Lemire's
    multiplication ("Fast Random Integer Generation in an Interval", 2019). A span of one value draws nothing."""
    span = np.uint64(high - low)
    if span == ONE:
        return np.int64(low)
    product = next_half(random) * span
    if product & MASK < span:
        threshold = ((MASK - span) + ONE) % span
        while product & MASK < threshold:
            product = next_half(random) * span
    return np.int64(low) + np.int64(product >> THIRTY_TWO)


@njit(cache=True)
def uniform(random):
    """Return a float from 0 to 1 (exclusive), as `Generator.uniform(0, 1)` does."""
    return np.float64(next_word(random) >> ELEVEN) * DOUBLE_UNIT


@njit(cache=True)
def hash_mix(value, constant, multiplier):
    """Return a hash of a 32-bit value, and the constant for the next."""
    value = (value ^ constant) & MASK
    constant = (constant * multiplier) & MASK
    value = (value * constant) & MASK
    return value ^ (value >> SIXTEEN), constant


@njit(cache=True)
def fill_pool(random, seed):
    """Mix a seed below 2**64 into the entropy pool of `SeedSequence(seed)`."""
    random.pool[0], random.pool[1] = np.uint64(seed) & MASK, np.uint64(seed) >> THIRTY_TWO
    random.pool[2] = random.pool[3] = NO_BITS
    constant = INIT_A
    for place in range(POOL_SIZE):
        random.pool[place], constant = hash_mix(random.pool[place], constant, MULT_A)
    for source in range(POOL_SIZE):
        for target in range(POOL_SIZE):
            if source != target:
                hashed, constant = hash_mix(random.pool[source], constant, MULT_A)
                mixed = (MIX_MULT_L * random.pool[target] - MIX_MULT_R * hashed) & MASK
                random.pool[target] = mixed ^ (mixed >> SIXTEEN)


@njit(cache=True)
def word_from_pool(random, place, constant):
    """Return 64 bits of `SeedSequence.generate_state`, and the constant for the next."""
    low, constant = hash_mix(random.pool[place % POOL_SIZE], constant, MULT_B)
    high, constant = hash_mix(random.pool[(place + 1) % POOL_SIZE], constant, MULT_B)
    return low | (high << THIRTY_TWO), constant


@njit(cache=True)
def seed_stream(random, seed):
    """Begin the stream of a seed from 0 to 2**63 - 1."""
    fill_pool(random, seed)
    state_high, constant = word_from_pool(random, 0, INIT_B)
    state_low, constant = word_from_pool(random, 2, constant)
    stream_high, constant = word_from_pool(random, 4, constant)
    stream_low, constant = word_from_pool(random, 6, constant)
    random.increment_high = (stream_high << ONE) | (stream_low >> SIXTY_THREE)
    random.increment_low = (stream_low << ONE) | ONE
    random.state_high = random.state_low = NO_BITS
    advance(random)
    random.state_low += state_low
    random.state_high += state_high + (ONE if random.state_low < state_low else NO_BITS)
    advance(random)
    random.has_half = False
