"""A synthetic stand-in for RAVDESS: its file names, spoken by a small source-filter voice.

Each emotion is a prosody (pitch, its range and slope, loudness, speed, spectral tilt, breath,
tremor), varied by actor and by clip until the classes overlap: a network learns them on unseen
actors, but not perfectly. They do not claim to sound like the emotions; they are made to be learnt.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from ser_jax.errors import check

SYNTHETIC_VERSION = 1  # raise it whenever a sample changes, so that stores are rebuilt

_HOP_S, _HOPS_PER_WINDOW = 0.008, 4
_MIN_S, _MAX_S = 2.02, 3.5  # of which a clip loses up to two frames at its edges
_LEVEL = 0.015  # RMS of neutral speech; anger's loudest peaks then just reach full scale


class _Prosody(NamedTuple):
    """How one emotion differs from neutral speech."""

    pitch_st: float  # mean pitch, semitones
    range_st: float  # size of the accents, semitones
    slope_st: float  # pitch at the end against the start, semitones
    level_db: float
    speed: float  # syllables, relative
    tilt_db: float  # spectral tilt against neutral, dB per octave; more is brighter
    breath: float  # noise in the source, relative to the pulses
    tremor_st: float  # wobble of the pitch at 6 Hz, semitones


_PROSODY = {
    1: _Prosody(0.0, 1.0, -2.0, 0.0, 1.00, 0.0, 0.05, 0.0),  # neutral
    2: _Prosody(-1.5, 0.7, -1.0, -4.0, 0.86, -2.0, 0.12, 0.0),  # calm
    3: _Prosody(4.5, 3.5, 0.5, 4.0, 1.12, 1.5, 0.04, 0.0),  # happy
    4: _Prosody(0.5, 0.8, -3.5, -6.0, 0.80, -3.0, 0.25, 0.4),  # sad
    5: _Prosody(3.0, 2.5, -4.0, 9.0, 1.10, 3.5, 0.03, 0.0),  # angry
    6: _Prosody(6.0, 1.2, 0.0, 2.0, 1.22, 0.5, 0.15, 1.0),  # fearful
    7: _Prosody(-2.0, 2.2, -4.5, 1.5, 0.84, 2.0, 0.08, 0.2),  # disgust
    8: _Prosody(5.5, 3.0, 7.0, 3.5, 1.02, 0.5, 0.06, 0.0),  # surprised
}
# How much actors and clips deviate from their emotion's prosody (standard deviations).
_ACTOR_SPREAD = _Prosody(0.8, 0.2, 0.6, 1.7, 0.04, 0.8, 0.02, 0.05)
_CLIP_SPREAD = _Prosody(1.4, 0.6, 1.4, 2.3, 0.07, 1.2, 0.03, 0.20)

_VOWELS_HZ = {  # first three formants of a man's voice
    "i": (400, 1920, 2560),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "e": (500, 1500, 2500),
}
_STATEMENTS = {1: "iaoiaeo", 2: "oaiiaeo"}  # kids are talking / dogs are sitting by the door
# Intensity, statement and repetition, in an order of which any prefix is about balanced.
_VARIANTS = ((1, 1, 1), (2, 2, 1), (1, 2, 2), (2, 1, 2), (2, 1, 1), (1, 2, 1), (2, 2, 2), (1, 1, 2))


def iterate_spoken_clips(
    n_actors: int, clips_per_actor: int, rate_hz: int
) -> list[tuple[str, Callable[[], np.ndarray]]]:
    """The corpus as file names, sorted, each with a function that makes its clip.

    A clip is int16 [N], 2 to 3.5 s at `rate_hz`, the same at every call; the functions can be
    pickled. 24 actors of 60 clips have RAVDESS's own 1,440 names. Fewer clips per actor, 1 to 60,
    cover emotions, intensities and statements as evenly as possible.

    Raises:
      UserError: more than 24 actors or 60 clips, or fewer than 1.
    """
    for key, value, most in (("actors", n_actors, 24), ("clips", clips_per_actor, 60)):
        check(1 <= value <= most, f"data.synthetic_{key}={value}: must lie between 1 and {most}")
    names = sorted(
        name for actor in range(1, n_actors + 1) for name in _list_names(actor, clips_per_actor)
    )
    return [(name, partial(synthesise, name, rate_hz)) for name in names]


def _list_names(actor: int, n_clips: int) -> list[str]:
    # Emotions take turns. Each actor starts where the last one stopped, and men and women start
    # with the same variant, so that small corpora are balanced too.
    queues = {}
    for emotion in _PROSODY:
        turn = ((actor - 1) // 2 + emotion) % len(_VARIANTS)
        queues[emotion] = [
            variant
            for variant in _VARIANTS[turn:] + _VARIANTS[:turn]
            if emotion != 1 or variant[0] == 1  # neutral has no strong intensity
        ]
    names: list[str] = []
    emotion = (actor - 1) * n_clips % len(_PROSODY)
    while len(names) < n_clips:
        queue = queues[emotion + 1]
        if queue:
            intensity, statement, repetition = queue.pop(0)
            fields = (3, 1, emotion + 1, intensity, statement, repetition, actor)
            names.append("-".join(f"{field:02d}" for field in fields) + ".wav")
        emotion = (emotion + 1) % len(_PROSODY)
    return names


def synthesise(name: str, rate_hz: int) -> np.ndarray:
    """One clip by its RAVDESS file name: int16 [N] at `rate_hz`, the same at every call."""
    _, _, emotion, intensity, statement, _, actor = (int(f) for f in name[:-4].split("-"))
    rng, actor_rng = _make_rng(name), _make_rng(f"actor {actor}")
    female = actor % 2 == 0
    base_hz = (205.0 if female else 115.0) * 2 ** (actor_rng.normal(0, 1.5) / 12)
    tract = (1.17 if female else 1.0) * np.exp(actor_rng.normal(0, 0.03))  # formants' scale
    prosody = _draw_prosody(emotion, intensity, rng, actor_rng)
    return _speak(prosody, base_hz, tract, _STATEMENTS[statement], rate_hz, rng)


def _make_rng(text: str) -> np.random.Generator:
    # Not hash(): Python salts it in every process.
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def _draw_prosody(emotion: int, intensity: int, rng, actor_rng) -> _Prosody:
    neutral, target = np.array(_PROSODY[1]), np.array(_PROSODY[emotion])
    expressiveness = actor_rng.normal(1.0, 0.1) * (1.15 if intensity == 2 else 0.85)
    values = neutral + expressiveness * (target - neutral)
    values = values + np.array(_ACTOR_SPREAD) * actor_rng.standard_normal(len(values))
    values = values + np.array(_CLIP_SPREAD) * rng.standard_normal(len(values))
    drawn = _Prosody(*values)
    return drawn._replace(
        range_st=max(drawn.range_st, 0.2),
        level_db=drawn.level_db + (2.0 if intensity == 2 else 0.0),
        speed=float(np.clip(drawn.speed, 0.65, 1.5)),
        breath=max(drawn.breath, 0.01),
        tremor_st=max(drawn.tremor_st, 0.0),
    )


class _Contours(NamedTuple):
    """What varies from frame to frame in a clip."""

    pitch_T: np.ndarray  # semitones above the actor's own pitch
    loudness_T: np.ndarray  # of the voice, relative
    burst_T: np.ndarray  # of the consonants, relative
    vowel_TV: np.ndarray  # share of each syllable's vowel


def _draw_contours(prosody: _Prosody, n_syllables: int, hop_s: float, rng) -> _Contours:
    syllable_s = 0.25 / prosody.speed * rng.uniform(0.85, 1.15, n_syllables)
    syllable_s[-1] *= 1.3  # speech slows down at its end
    lead_s, trail_s = rng.uniform(0.2, 0.4, 2)
    spoken_s = syllable_s.sum()
    centre_s = lead_s + np.cumsum(syllable_s) - syllable_s / 2
    accent_st = prosody.range_st * rng.standard_normal(n_syllables)
    stress = 10 ** (rng.normal(0, 1.5, n_syllables) / 20)
    tremor_phase = rng.uniform()

    clip_s = np.clip(lead_s + spoken_s + trail_s, _MIN_S, _MAX_S)
    time_T = np.arange(int(clip_s / hop_s)) * hop_s
    pitch_T = prosody.pitch_st + np.interp(time_T, centre_s, accent_st)
    pitch_T += prosody.slope_st * (np.clip((time_T - lead_s) / spoken_s, 0, 1) ** 2 - 1 / 3)
    pitch_T += prosody.tremor_st * np.sin(2 * np.pi * (6.0 * time_T + tremor_phase))
    pitch_T += rng.normal(0, 0.15, len(time_T))  # jitter, as every throat has

    # Distance from each syllable's middle, in syllables.
    distance_TV = (time_T[:, None] - centre_s[None]) / syllable_s[None]
    bump_TV = np.cos(np.pi * np.clip(distance_TV, -0.5, 0.5)) ** 0.7
    onset_TV = (distance_TV + 0.5) * syllable_s[None]  # seconds; a consonant stands there
    vowel_TV = np.exp(-((distance_TV / 0.5) ** 2)) + 1e-9
    return _Contours(
        pitch_T=pitch_T,
        loudness_T=bump_TV @ stress,
        burst_T=np.exp(-((onset_TV / 0.02) ** 2)).sum(1),
        vowel_TV=vowel_TV / vowel_TV.sum(1, keepdims=True),
    )


def _speak(prosody: _Prosody, base_hz, tract, vowels: str, rate_hz: int, rng) -> np.ndarray:
    hop = round(_HOP_S * rate_hz)
    contours = _draw_contours(prosody, len(vowels), hop / rate_hz, rng)
    n_frames = len(contours.pitch_T)
    n_samples = (n_frames + _HOPS_PER_WINDOW - 1) * hop
    # Frame t is centred half a window after its first sample.
    frame_N = np.arange(n_samples) / hop - _HOPS_PER_WINDOW / 2
    pitch_N, loudness_N, burst_N = (
        np.interp(frame_N, np.arange(n_frames), contour_T) for contour_T in contours[:3]
    )
    noise_N = rng.standard_normal(n_samples)
    pulses_N = _make_pulses(base_hz * np.exp2(pitch_N / 12), rate_hz)
    source_N = loudness_N * (pulses_N + prosody.breath * noise_N)
    wave_N = _filter(source_N, contours.vowel_TV, vowels, tract, prosody.tilt_db, rate_hz)

    wave_N /= np.sqrt(np.mean(wave_N**2))
    consonants_N = np.diff(noise_N * burst_N, prepend=0.0)  # a difference: bright, as hisses are
    wave_N += 0.1 * consonants_N + 0.003 * rng.standard_normal(n_samples)  # and the room's noise
    wave_N *= _LEVEL * 10 ** (prosody.level_db / 20)
    edge = _HOPS_PER_WINDOW // 2 * hop  # where not all windows overlap
    return np.round(np.clip(wave_N[edge:-edge], -1, 1) * 32767).astype(np.int16)


def _make_pulses(pitch_hz: np.ndarray, rate_hz: int) -> np.ndarray:
    """A train of pulses with equal harmonics below half the rate, so that none alias; [N]."""
    n_harmonics = max(1, int(0.5 * rate_hz / pitch_hz.max()))
    table_size = 1 << (16 * n_harmonics).bit_length()
    spectrum = np.zeros(table_size // 2 + 1)
    spectrum[1 : n_harmonics + 1] = 1.0
    table = np.fft.irfft(spectrum) * table_size / np.sqrt(2 * n_harmonics)  # of unit power
    phase = np.cumsum(pitch_hz / rate_hz)
    return table[(phase * table_size).astype(np.int64) % table_size]


def _filter(source_N, weight_TV, vowels: str, tract, tilt_db, rate_hz: int) -> np.ndarray:
    """The source through the mouth's formants and tilt, by windowed overlap-add; [N]."""
    hop = round(_HOP_S * rate_hz)
    size = _HOPS_PER_WINDOW * hop
    hz_F = np.fft.rfftfreq(size, 1 / rate_hz)
    gain_VF = np.stack([_compute_log_gain(vowel, tract, tilt_db, hz_F) for vowel in vowels])
    # float32 halves the cost; the clip is 16-bit anyway.
    gain_TF = np.exp((weight_TV @ gain_VF).astype(np.float32))
    # Applied twice: a Hann window, whose four overlaps sum to a constant.
    window = np.sin(np.pi * (np.arange(size, dtype=np.float32) + 0.5) / size)
    frames_TN = np.lib.stride_tricks.sliding_window_view(source_N.astype(np.float32), size)[::hop]
    frames_TN = np.fft.irfft(np.fft.rfft(frames_TN * window) * gain_TF, size) * window
    n_frames = len(frames_TN)
    out = np.zeros((n_frames + _HOPS_PER_WINDOW - 1, hop))
    for part in range(_HOPS_PER_WINDOW):
        out[part : part + n_frames] += frames_TN[:, part * hop : (part + 1) * hop]
    return out.ravel()


def _compute_log_gain(vowel: str, tract: float, tilt_db: float, hz_F: np.ndarray) -> np.ndarray:
    octaves_F = np.log2(np.maximum(hz_F, 100.0) / 100.0)
    log_F = (tilt_db - 9.0) * octaves_F * (np.log(10) / 20)
    for formant_hz in (*_VOWELS_HZ[vowel], 3500.0):
        centre_hz = formant_hz * tract
        width_hz = 50.0 + 0.05 * centre_hz
        resonance = (1j * hz_F) ** 2 + 1j * hz_F * width_hz + centre_hz**2
        log_F = log_F + np.log(centre_hz**2 / np.abs(resonance))
    return log_F
