import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uniemo_pipelines.images_uniemo import as_rgb, image_size, open_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def close_to(pixel: tuple[int, ...], expected: tuple[int, ...], tolerance: int = 3) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", RED, ".png", RED),
        ("1", 1, ".png", WHITE),
        ("L", 100, ".png", (100, 100, 100)),
        ("LA", (0, 0), ".png", WHITE),
        ("RGBA", (255, 0, 0, 255), ".png", RED),
        ("RGBA", (255, 0, 0, 0), ".png", WHITE),
        ("RGBA", (0, 0, 0, 128), ".webp", (127, 127, 127)),
        ("CMYK", (0, 255, 255, 0), ".tiff", RED),
        ("CMYK", (0, 255, 255, 0), ".jpg", RED),
        ("YCbCr", (76, 85, 255), ".jpg", RED),
        ("I;16", 65535, ".png", WHITE),
        ("I;16", 32768, ".png", (128, 128, 128)),
        ("I;16", 32768, ".tiff", (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, suffix, expected):
    path = save(Image.new(mode, (9, 5), colour), tmp_path / f"picture{suffix}")
    image = open_image(path)
    assert image.mode == "RGB"
    assert image.size == (9, 5)
    assert close_to(image.getpixel((4, 2)), expected)


def test_float_grayscale_is_scaled_by_its_own_range(tmp_path):
    values = np.array([[-1.0, 0.0, 1.0, np.nan]], dtype=np.float32)
    image = open_image(save(Image.fromarray(values), tmp_path / "depth.tiff"))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_transparent_palette_entry_becomes_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    image = open_image(save(palette, tmp_path / "palette.png", transparency=1))
    assert [image.getpixel((x, 0)) for x in range(2)] == [RED, WHITE]


def test_first_frame_of_an_animation(tmp_path):
    path = tmp_path / "moving.gif"
    Image.new("RGB", (4, 4), RED).save(path, save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    assert open_image(path).getpixel((0, 0)) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste(RED, (0, 0, 8, 8))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> the Transpose a camera held so would cause
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(save(stored, tmp_path / "photo.png", exif=exif))
    assert np.array_equal(np.asarray(image), np.asarray(upright))


@pytest.mark.parametrize("size", [(640, 480), (480, 640)])
def test_a_jpeg_is_decoded_no_larger_than_needed(tmp_path, size):
    """And scaled down it is the same picture; on its side it is still turned."""
    coarse = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), tmp_path / "photo.jpg", exif=exif)
    whole, small = open_image(path), open_image(path, edge=60)
    assert whole.size == size[::-1] and small.size == (size[1] // 4, size[0] // 4)
    scaled = [np.asarray(image.resize((60, 60), Image.Resampling.BICUBIC), dtype=int) for image in (whole, small)]
    assert abs(scaled[0] - scaled[1]).mean() < 1
    assert open_image(path, edge=10_000).size == whole.size


def test_open_files_are_read_too():
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3), RED).save(buffer, "PNG")
    buffer.seek(0)
    assert open_image(buffer).getpixel((0, 0)) == RED


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".tiff", ".bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_picture_cut_short_is_named(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(Image.fromarray(noise), tmp_path / f"cut{suffix}")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=f"cut{suffix}") as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "an empty file"), (b"dear diary", "expected a picture"), (b"\x89PNG\r\n\x1a\n", "damaged|expected")],
)
def test_what_is_no_picture_is_named(tmp_path, content, words):
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        open_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damage_anywhere_is_a_value_error_or_a_picture(kind):
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, kind)
    for _ in range(50):
        damaged = bytearray(buffer.getvalue())
        for place in random.integers(0, min(len(damaged), 80), 3):
            damaged[place] = random.integers(0, 256)
        try:
            assert open_image(io.BytesIO(damaged)).mode == "RGB"
        except ValueError as error:
            assert "\n" not in str(error)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="missing.jpg: no such file"):
        open_image(tmp_path / "missing.jpg")
    with pytest.raises(ValueError, match="is a directory"):
        open_image(tmp_path)


def test_decompression_bomb_is_refused(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match="bomb.png: the picture has more than .* pixels"):
        open_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_known_without_decoding_and_is_that_of_the_upright_image(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = save(Image.new("RGB", (20, 10), RED), tmp_path / f"turned{suffix}", exif=exif)
    assert image_size(path) == open_image(path).size == ((10, 20) if orientation >= 5 else (20, 10))


def test_no_size_of_what_is_no_picture(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.jpg: expected a picture"):
        image_size(tmp_path / "a.jpg")


def test_an_image_that_needs_nothing_is_not_copied_and_one_that_is_turned_stays_as_it_was():
    plain = Image.new("RGB", (20, 10), RED)
    assert as_rgb(plain) is plain
    plain.getexif()[274] = 6
    assert as_rgb(plain).size == (10, 20) and plain.size == (20, 10)
