"""Word-level tokens: lower-case, split on white space, one id a word, then the end mark, then padding."""

from wamcore.sim.scene import COLOURS

from .data import TEMPLATES

PAD, UNKNOWN, END = 0, 1, 2


def vocabulary() -> dict[str, int]:
    phrases = [p.format(c=" ".join(COLOURS), d="left right") for group in TEMPLATES.values() for p in group]
    words = sorted({word for phrase in phrases for word in phrase.split()})
    return {"<pad>": PAD, "<unk>": UNKNOWN, "</s>": END} | {word: i for i, word in enumerate(words, 3)}


def tokenize(text: str, vocab: dict[str, int], length: int) -> list[int]:
    """Ids of `text`, exactly `length` of them; what does not fit before the end mark is dropped."""
    ids = [vocab.get(word, UNKNOWN) for word in text.lower().split()][: length - 1]
    return [*ids, END, *[PAD] * (length - 1 - len(ids))]


def tokenizer_json() -> dict:
    return {"type": "word", "vocab": vocabulary(), "pad": PAD, "unk": UNKNOWN, "eos": END}
