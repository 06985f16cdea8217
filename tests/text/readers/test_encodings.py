from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electra.errors import ElectraError
from electra.text.readers import ReadOptions, decode

Read = Callable[..., Any]

SAMPLES = {
    "gb18030": "今天天气很好，我们去公园散步。孩子们在湖边喂鸭子！",
    "big5": "今天天氣很好，我們去公園散步。孩子們在湖邊餵鴨子！",
    "shift_jis": "今日は天気がいいので、みんなで公園を散歩しました。",
    "euc_jp": "今日は天気がいいので、みんなで公園を散歩しました。",
    "euc_kr": "오늘은 날씨가 좋아서 우리는 공원을 산책했습니다.",
    "cp1251": "Сегодня хорошая погода, и мы пошли гулять в парк.",
    "koi8-r": "Сегодня хорошая погода, и мы пошли гулять в парк.",
    "cp1252": "Le café du coin ouvre à sept heures, où l’on déjeune.",
    "cp1250": "Dnes je hezké počasí, a tak jsme šli na procházku do parku.",
    "utf-16-le": "今天天气很好 and we went for a walk in the park.\n",
    "utf-16-be": "今天天气很好 and we went for a walk in the park.\n",
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refusal(reading: Read, path: Path, **options: Any) -> ElectraError:
    with pytest.raises(ElectraError) as caught:
        reading(path, **options)
    assert caught.value.code == "E-D100"
    assert "\n" not in str(caught.value)
    return caught.value


# -- given ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", SAMPLES)
def test_an_encoding_that_is_given(reading: Read, tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", SAMPLES[encoding].encode(encoding))
    found = reading(path, encoding=encoding)
    assert found.texts == [SAMPLES[encoding].strip()]
    assert found.drops.total.counts == {f"read: files in {codecs.lookup(encoding).name}": 1}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text("ab \r\n中文字，é𠮷", max_size=60),
    encoding=st.sampled_from(["utf-8", "gb18030", "utf-16-le", "utf-32-be"]),
    block=st.integers(1, 9),
)
def test_characters_torn_by_blocks(reading: Read, tmp_path: Path, text: str, encoding: str, block: int) -> None:
    path = write(tmp_path / "a.txt", text.encode(encoding))
    whole = reading(path, encoding=encoding, document="line").texts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "_BLOCK_BYTES", block)
        assert reading(path, encoding=encoding, document="line").texts == whole
    assert whole == [stripped for line in text.replace("\r", "\n").split("\n") if (stripped := " ".join(line.split()))]


def test_every_file_of_a_folder(reading: Read, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,n\n中文,1\n".encode("gb18030"))
    write(tmp_path / "b.jsonl", '{"text": "中文"}\n'.encode("gb18030"))
    write(tmp_path / "c.txt", codecs.BOM_UTF8 + "中文".encode())  # its mark says more than the user
    found = reading(tmp_path, encoding="gb18030")
    assert found.texts == ["中文"] * 3
    assert found.drops.total.counts == {"read: files in gb18030": 2, "read: files in utf-8": 1}


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "hex", "undefined", "idna", "unicode_escape", ""])
def test_encodings_that_are_none(encoding: str) -> None:
    with pytest.raises(ElectraError) as caught:
        ReadOptions(encoding=encoding)
    assert caught.value.code == "E-C107"


@pytest.mark.parametrize("fields", [(), ("",), ("a", "")])
def test_no_text_field(fields: tuple[str, ...]) -> None:
    with pytest.raises(ElectraError) as caught:
        ReadOptions(text_field=fields)
    assert caught.value.code == "E-C108"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_order_of_bytes_is_not_guessed(reading: Read, tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", "text".encode(f"{encoding}-be"))
    assert f"--encoding {encoding}-le or {encoding}-be" in str(refusal(reading, path, encoding=encoding))
    assert reading(path, encoding=f"{encoding}-be").texts == ["text"]
    assert reading(write(path, "text".encode(encoding)), encoding=encoding).texts == ["text"]


def test_bytes_that_are_not_of_the_given_encoding(reading: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "中文\n\n中".encode("gb18030") + b"\xff\n\nfine")
    error = refusal(reading, path, encoding="gb18030")
    assert "a.txt:3: byte 8 (0xff) is not GB18030" in str(error)
    found = reading(path, encoding="gb18030", errors="skip")
    assert (found.texts, found.lost) == (["中文", "fine"], {"dropped: documents with undecodable bytes": 1})
    found = reading(path, encoding="gb18030", errors="replace")
    assert (found.texts, found.lost) == (["中文", "中\ufffd", "fine"], {"replaced: undecodable bytes": 1})


# -- certain -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (b"\x84\x31\x95\x33", "gb18030"),
    ],
)
def test_byte_order_marks(reading: Read, tmp_path: Path, mark: bytes, encoding: str) -> None:
    found = reading(write(tmp_path / "a.txt", mark + "中文\r\ntext".encode(encoding)))
    assert found.texts == ["中文\ntext"]
    assert found.drops.total.counts == {f"read: files in {encoding}": 1}


@pytest.mark.parametrize("offset", [2, 20])
def test_places_in_utf_16(reading: Read, tmp_path: Path, offset: int) -> None:
    data = bytearray("one\ntwo\nthree".encode("utf-16"))
    data[offset : offset + 2] = b"\x00\xdc"  # half of a pair
    error = refusal(reading, write(tmp_path / "a.txt", bytes(data)))
    assert f"a.txt:{1 if offset == 2 else 3}: byte {offset} (0x00) is not UTF-16-LE" in str(error)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_text_full_of_zero_bytes_is_not_taken_for_utf_8(reading: Read, tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", "plain English".encode(encoding))
    assert "so many zero bytes" in str(refusal(reading, path))
    assert reading(path, errors="skip").lost == {"dropped: files of unknown encoding": 1}


def test_escape_sequences_are_not_taken_for_utf_8(reading: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "今日は天気がいい".encode("iso2022_jp"))
    assert "ISO-2022" in str(refusal(reading, path))
    assert reading(path, encoding="iso2022_jp").texts == ["今日は天気がいい"]


# -- proposed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", SAMPLES)
def test_the_right_encoding_is_among_the_proposals(reading: Read, tmp_path: Path, encoding: str) -> None:
    data = ("\n".join(["1, 2, 3", *[SAMPLES[encoding]] * 20])).encode(encoding)
    error = refusal(reading, write(tmp_path / "a.txt", data))
    assert f' {encoding} "' in error.fix
    if not encoding.startswith("utf-16"):
        assert f"byte {next(place for place, byte in enumerate(data) if byte > 127)} " in error.cause
    if encoding in ("cp1252", "cp1250", "cp1251", "koi8-r"):
        assert not any(other in error.fix for other in ("gb18030", "big5", "shift_jis", "euc"))
    first = next(character for character in SAMPLES[encoding] if not character.isascii())
    assert first in error.fix


def test_utf_8_that_was_damaged_is_not_called_something_else(reading: Read, tmp_path: Path) -> None:
    error = refusal(reading, write(tmp_path / "a.txt", "schön\nund g".encode() + b"\xff" + b"ut"))
    assert "a.txt:2: byte 12 (0xff) is not UTF-8; it is UTF-8 up to there" in str(error)
    assert "cp1252" not in str(error)
