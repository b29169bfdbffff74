"""UTS #46 ToASCII as the WHATWG URL Standard calls it, with the mapping table of the `idna` package.

CheckHyphens=false, CheckBidi=true, CheckJoiners=true, UseSTD3ASCIIRules=false, Transitional_Processing=false,
VerifyDnsLength=false, IgnoreInvalidPunycode=false.

Punycode takes quadratic time and canonicalising must be linear, so a label of more than 1 000 characters, or an A-label
of more than 2 000 bytes after its prefix, fails. DNS carries labels of 63 bytes.

Not promised: characters that are newer than the Unicode tables of this Python (normalisation, bidi classes, marks) or
of the `idna` package (mapping, joining types) may be judged differently by another implementation.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import idna

MAX_LABEL_CHARACTERS = 1_000
MAX_PUNYCODE_BYTES = 2_000

_PREFIX = "xn--"
# RFC 3492, section 5.
_BASE, _T_MIN, _T_MAX, _SKEW, _DAMP, _INITIAL_BIAS, _INITIAL_N = 36, 1, 26, 38, 700, 72, 0x80
_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"
_JOINERS = "\u200c\u200d"


def domain_to_ascii(domain: str) -> bytes:
    """Map, normalise, validate and encode a domain.

    Raises:
        ValueError: The domain breaks a rule of UTS #46.
    """
    mapped = unicodedata.normalize("NFC", "".join(map_character(character) for character in domain))
    labels = [unicode_label(label) for label in mapped.split(".")]
    if any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for label in labels for character in label):
        for label in labels:
            check_bidi(label)
    return b".".join(ascii_label(label) for label in labels)


@cache
def map_character(character: str) -> str:
    """The UTS #46 mapping of one character; `ValueError` (as `idna.IDNAError`) when it is disallowed."""
    return idna.uts46_remap(character, std3_rules=False, transitional=False)


def unicode_label(label: str) -> str:
    """Decode an A-label, and check the validity criteria of section 4.1."""
    if label.startswith(_PREFIX):
        if not label.isascii():
            raise ValueError("an A-label with non-ASCII characters")
        if len(label) > len(_PREFIX) + MAX_PUNYCODE_BYTES:
            raise ValueError("an A-label too long to decode")
        label = punycode_decode(label[len(_PREFIX) :])
        if label.isascii():
            raise ValueError("an A-label without need")
    check_label(label)
    return label


def check_label(label: str) -> None:
    """Criteria 1 to 7 of section 4.1; bidi, the 8th, needs the whole domain."""
    if unicodedata.normalize("NFC", label) != label:
        raise ValueError("not in normal form C")
    if label.startswith(_PREFIX) or "." in label:
        raise ValueError("an A-label or a dot inside an A-label")
    if label and unicodedata.category(label[0]).startswith("M"):
        raise ValueError("begins with a combining mark")
    if any(map_character(character) != character for character in label):
        raise ValueError("a character that is mapped or ignored")
    for position, character in enumerate(label):
        if character in _JOINERS and not idna.valid_contextj(label, position):
            raise ValueError("a joiner out of context")


def check_bidi(label: str) -> None:
    """The six rules of RFC 5893, section 2."""
    if not label:
        return
    classes = [unicodedata.bidirectional(character) for character in label]
    without_marks = list(classes)
    while without_marks and without_marks[-1] == "NSM":
        without_marks.pop()
    last = without_marks[-1] if without_marks else ""
    if classes[0] in ("R", "AL"):
        allowed = {"R", "AL", "AN", "EN", "ES", "CS", "ET", "ON", "BN", "NSM"}
        good_end = last in ("R", "AL", "EN", "AN")
        mixed_digits = "EN" in classes and "AN" in classes
    elif classes[0] == "L":
        allowed = {"L", "EN", "ES", "CS", "ET", "ON", "BN", "NSM"}
        good_end = last in ("L", "EN")
        mixed_digits = False
    else:
        raise ValueError("bidi: first character")
    if not set(classes) <= allowed or not good_end or mixed_digits:
        raise ValueError("bidi: mixed directions")


def ascii_label(label: str) -> bytes:
    """The label itself when it is ASCII, else its A-label."""
    if label.isascii():
        return label.encode("ascii")
    if len(label) > MAX_LABEL_CHARACTERS:
        raise ValueError("a label too long to encode")
    return _PREFIX.encode("ascii") + label.encode("punycode")


def punycode_decode(text: str) -> str:
    """RFC 3492, section 6.2, for text that is lower-case ASCII."""
    basic, _, extended = text.rpartition("-")
    output = list(basic)
    code_point, position, bias = _INITIAL_N, 0, _INITIAL_BIAS
    digits = iter(extended)
    for first in digits:
        start, weight, threshold_at = position, 1, _BASE
        digit_text = first
        while True:
            digit = _DIGITS.find(digit_text)
            if digit < 0:
                raise ValueError("punycode: no digit")
            position += digit * weight
            threshold = min(max(threshold_at - bias, _T_MIN), _T_MAX)
            if digit < threshold:
                break
            weight *= _BASE - threshold
            threshold_at += _BASE
            following = next(digits, None)
            if following is None:
                raise ValueError("punycode: cut short")
            digit_text = following
        length = len(output) + 1
        bias = _adapt(position - start, length, is_first=start == 0)
        code_point += position // length
        position %= length
        if code_point > 0x10FFFF or 0xD800 <= code_point <= 0xDFFF:
            raise ValueError("punycode: no character")
        output.insert(position, chr(code_point))
        position += 1
    return "".join(output)


def _adapt(delta: int, length: int, *, is_first: bool) -> int:
    """RFC 3492, section 6.1."""
    delta = delta // _DAMP if is_first else delta // 2
    delta += delta // length
    steps = 0
    while delta > ((_BASE - _T_MIN) * _T_MAX) // 2:
        delta //= _BASE - _T_MIN
        steps += _BASE
    return steps + (_BASE - _T_MIN + 1) * delta // (delta + _SKEW)
