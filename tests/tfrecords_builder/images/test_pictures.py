import concurrent.futures
import functools
import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfrecords_builder import choices
from tfrecords_builder.errors import InputError
from tfrecords_builder.images import headers, image_ops, pictures, pixel_ranges

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def _file(picture, file_format="PNG", mode=None, **options):
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(stream, file_format, **options)
    return stream.getvalue()


def _png(pixels, bits, colour):
    """A PNG of the types that Pillow does not write; pixels: the bytes of each row."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@functools.lru_cache
def _encoder(resolution, **options):
    return pictures.PictureEncoder(pictures.PictureOptions(resolution, **options))


@pytest.fixture(autouse=True, scope="module")
def _forget_encoders():
    yield  # TensorFlow complains on stderr of graphs that are still there when Python ends
    _encoder.cache_clear()


def _make(data, resolution=16, **options):
    encoded = _encoder(resolution, **options).encode(data)
    picture = Image.open(io.BytesIO(encoded))
    assert picture.mode == "L" and picture.size == (resolution, resolution)
    return np.asarray(picture)


def _reason(data):
    with pytest.raises(pictures.BadImage) as caught:
        pictures.read_grey(data)
    with pytest.raises(pictures.BadImage) as again:
        _make(data)
    assert str(caught.value) == str(again.value) and "\n" not in str(caught.value)
    return str(caught.value)


PALETTE = Image.fromarray(COLOUR).quantize(50)
FILES = {
    "png grey": _file(GREY),
    "png grey, one transparent": _file(GREY, transparency=7),
    "png grey alpha": _file(np.dstack([GREY, COLOUR[..., 1]])),
    "png rgb": _file(COLOUR),
    "png rgba": _file(np.dstack([COLOUR, GREY])),
    "png palette": _file(PALETTE),
    "png palette, transparent": _file(PALETTE, transparency=bytes(range(50))),
    "png 4-bit palette": _file(Image.fromarray(COLOUR).quantize(16), bits=4),
    "png 1 bit": _file(GREY > 99),
    "jpeg grey": _file(GREY, "JPEG"),
    "jpeg rgb": _file(COLOUR, "JPEG"),
    "jpeg rgb, progressive": _file(COLOUR, "JPEG", progressive=True, subsampling=0),
    "jpeg cmyk": _file(COLOUR, "JPEG", "CMYK"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("resolution", [16, 64])
def test_same_bytes_as_the_plain_ops(name, resolution):
    data = FILES[name]
    grey = image_ops.decode_grey(data)
    expected = image_ops.encode_png(pixel_ranges.round_to_uint8(image_ops.resize(grey, resolution, resolution))).numpy()
    assert _encoder(resolution).encode(data) == expected
    read = pictures.read_grey(data)
    assert read.dtype == np.float32 and read.shape == grey.shape[:2]
    np.testing.assert_array_equal(read, grey.numpy()[..., 0] / np.float32(255))


def test_few_bits_span_the_whole_range():
    rows = np.array([[0b00011011], [0b11100100]], np.uint8)  # four pixels of two bits a byte
    data = _png(rows, 2, 0).replace(struct.pack(">II", 1, 2), struct.pack(">II", 4, 2), 1)
    data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    assert (pictures.read_grey(data) * 255).tolist() == [[0, 85, 170, 255], [255, 170, 85, 0]]


def test_threads_share_an_encoder():
    encoder = pictures.PictureEncoder(pictures.PictureOptions(24, "pad", "max"))
    alone = {name: encoder.encode(data) for name, data in FILES.items()}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert dict(zip(FILES, pool.map(encoder.encode, FILES.values()), strict=True)) == alone


def test_16_bits_keep_their_precision():
    deep = np.array([[0, 1, 255, 256], [257, 30000, 65534, 65535]], np.uint16)
    np.testing.assert_allclose(pictures.read_grey(_file(deep)), deep / 65535, rtol=1e-6)
    # All within one level of 8 bits: what is below it comes out only when all 16 are used.
    fine = np.tile(np.arange(25572, 25572 + 256, 16, dtype=np.uint16), (16, 1))
    assert np.unique(_make(_file(fine))).tolist() == [100]
    assert np.unique(_make(_file(fine), contrast="percentile")).size == 16
    assert _make(_file(np.full((4, 4), 65535 // 2, np.uint16)), 4).tolist() == [[127] * 4] * 4


def test_16_bit_colour_and_alpha():
    colour = RNG.integers(0, 65536, (5, 7, 3)).astype(">u2")
    expected = colour.astype(float) @ [0.299, 0.587, 0.114] / 65535
    np.testing.assert_allclose(pictures.read_grey(_png(colour, 16, 2)), expected, atol=1e-6)
    alpha = np.full((5, 7, 1), 300, ">u2")
    np.testing.assert_allclose(
        pictures.read_grey(_png(np.dstack([colour, alpha]).astype(">u2"), 16, 6)), expected, atol=1e-6
    )
    grey = pictures.read_grey(_png(np.dstack([colour[..., :1], alpha]).astype(">u2"), 16, 4))
    np.testing.assert_allclose(grey, colour[..., 0] / 65535, atol=1e-6)
    assert pictures.read_grey(_png(np.full((2, 2, 3), 65535, ">u2"), 16, 2)).max() == 1


def test_contrast_max():
    picture = np.array([[0, 50], [75, 100]], np.uint8)
    assert _make(_file(picture), 2, contrast="max").tolist() == [[0, 128], [191, 255]]
    assert _make(_file(picture.astype(np.uint16)), 2, contrast="max").tolist() == [[0, 128], [191, 255]]
    assert _make(_file(np.zeros((3, 3), np.uint8)), 4, contrast="max").max() == 0
    assert _make(_file(np.zeros((3, 3), np.uint16)), 4, contrast="max").max() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_contrast_percentile(dtype):
    picture = np.full((20, 20), 60, dtype)
    picture[:10] = 160
    picture[0, 0], picture[-1, -1] = 255, 0  # one pixel in 400 is below and above half a percent
    picture[5, 5] = 110
    made = _make(_file(picture), 20, contrast="percentile")
    assert (made[0, 0], made[-1, -1], made[3, 3], made[15, 3], made[5, 5]) == (255, 0, 255, 0, 128)
    assert np.unique(_make(_file(np.full((9, 9), 77, np.uint8)), 4, contrast="percentile")).tolist() == [77]
    assert np.unique(_make(_file(np.full((9, 9), 77 * 257, np.uint16)), 4, contrast="percentile")).tolist() == [77]


def test_contrast_is_that_of_the_whole_image():
    picture = np.full((10, 30), 100, np.uint8)
    picture[:, :5] = 200  # cut off by crop
    assert np.unique(_make(_file(picture), 5, aspect="crop", contrast="max")).tolist() == [128]


@pytest.mark.parametrize("aspect", choices.ASPECTS)
@pytest.mark.parametrize("contrast", choices.CONTRASTS)
def test_aspects_of_a_square_are_equal(aspect, contrast):
    data = _file(GREY[:30, :30])
    np.testing.assert_array_equal(_make(data, aspect=aspect, contrast=contrast), _make(data, contrast=contrast))


def test_pad():
    made = _make(_file(np.full((100, 50), 90, np.uint8)), 9, aspect="pad")  # 4.5 columns, rounded to 5
    assert made[4].tolist() == [0, 0, 90, 90, 90, 90, 90, 0, 0]
    made = _make(_file(np.full((40, 100), 90, np.uint8)), 10, aspect="pad")
    assert made[:, 4].tolist() == [0, 0, 0, 90, 90, 90, 90, 0, 0, 0]
    made = _make(_file(np.full((30, 100), 90, np.uint8)), 10, aspect="pad")  # odd: one row more at the end
    assert made[:, 4].tolist() == [0, 0, 0, 90, 90, 90, 0, 0, 0, 0]
    made = _make(_file(np.full((1, 100), 90, np.uint8)), 8, aspect="pad")
    assert np.flatnonzero(made[:, 3]).tolist() == [3] and made[3].tolist() == [90] * 8


def test_crop():
    picture = np.zeros((4, 11), np.uint8)
    picture[:, 3:7] = RNG.integers(1, 256, (4, 4))
    np.testing.assert_array_equal(_make(_file(picture), 4, aspect="crop"), picture[:, 3:7])
    np.testing.assert_array_equal(_make(_file(picture.T), 4, aspect="crop"), picture[:, 3:7].T)


def test_extreme_shapes():
    for shape in [(1, 1), (1, 2000), (2000, 3)]:
        for aspect in choices.ASPECTS:
            assert _make(_file(np.full(shape, 9, np.uint8)), 8, aspect=aspect).max() == 9


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"Patient,Label\n", r"is no PNG, JPEG or DICOM file (it starts with b'Patient,')"),
        (_file(GREY, "GIF"), r"is no PNG, JPEG or DICOM file (it starts with b'GIF8"),
        (_file(GREY, "BMP"), "is no PNG, JPEG or DICOM file"),
        (bytes(200), "is no PNG, JPEG or DICOM file"),
        (FILES["png grey"][:20], "is a damaged PNG"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIDAT" + bytes(40), "is a damaged PNG"),
        (_png(GREY, 8, 5), "is a damaged PNG"),
        (_png(GREY, 7, 0), "is a damaged or truncated PNG"),
        (b"\xff\xd8\xff", "is a damaged or truncated JPEG"),
        (b"\xff\xd8\xff\xd9" + bytes(30), "is a damaged or truncated JPEG"),
        (b"\xff\xd8" + b"\xff" * 100_000, "is a damaged or truncated JPEG"),
        (FILES["jpeg grey"].replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c"), "is a JPEG of 12 bits"),
    ],
)
def test_unusable_bytes(data, reason):
    assert _reason(data).startswith(reason)


@pytest.mark.parametrize("name", ["png grey", "png rgb", "png palette"])
def test_cut_and_changed_png(name):
    data = FILES[name]
    for cut in (1, 4, 12, 13, 16, 20, len(data) // 2):
        assert "PNG" in _reason(data[:-cut])
    for place in (-17, -16, -14, len(data) // 2):  # end of the pixels, their CRC, their middle
        changed = bytearray(data)
        changed[place] ^= 1
        assert _reason(bytes(changed)) == "is a damaged or truncated PNG"


@pytest.mark.parametrize("name", ["jpeg grey", "jpeg rgb", "jpeg rgb, progressive"])
def test_cut_jpeg(name, capfd):
    data = FILES[name]
    for cut in (1, 2, 3, 50, len(data) // 2, len(data) - 200):
        assert "truncated JPEG" in _reason(data[:-cut])
    assert capfd.readouterr() == ("", "")


def test_cut_16_bit_png():
    data = _file(RNG.integers(0, 65536, (20, 20)).astype(np.uint16))
    assert _reason(data[:-30]) == "is a damaged or truncated PNG"


def _declare(height, width):
    """A PNG and JPEGs of some hundred bytes that declare a size."""
    png = bytearray(FILES["png grey"])
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    frame = struct.pack(">HH", *GREY.shape)
    jpegs = [
        FILES[name].replace(frame, struct.pack(">HH", min(height, 65535), min(width, 65535)), 1)
        for name in ("jpeg grey", "jpeg rgb, progressive")
    ]
    return [bytes(png), *jpegs]


def test_declared_size_is_refused_before_decoding(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("decoded")

    encoder = _encoder(8)
    monkeypatch.setattr(tf, "constant", fail)
    for data in _declare(60000, 60000):
        for function in (encoder.encode, pictures.read_grey):
            with pytest.raises(pictures.BadImage, match=r"too large: declares 60000 x 60000 pixels.*50,000,000"):
                function(data)
    for size in ((0, 50), (50, 0)):
        for data in _declare(*size):
            with pytest.raises(pictures.BadImage, match=f"has no pixels: declares {size[1]} x {size[0]}"):
                encoder.encode(data)


def test_limit_is_a_number_of_pixels(monkeypatch):
    monkeypatch.setattr(headers, "MAX_PIXELS", GREY.size)
    for data in FILES.values():
        pictures.read_grey(data)
    monkeypatch.setattr(headers, "MAX_PIXELS", GREY.size - 1)
    for data in FILES.values():
        assert "is too large: declares 53 x 37" in _reason(data)


def test_a_jpeg_may_have_bytes_around_its_segments():
    data = FILES["jpeg grey"]
    padded = data[:2] + b"\xff\xfe\0\x06\xff\xc0\0\0" + b"\xff\xff\xff" + data[2:] + b"\0" * 7
    np.testing.assert_array_equal(pictures.read_grey(padded), pictures.read_grey(data))


def test_damage_anywhere_is_a_bad_image_or_a_picture():
    encoder = pictures.PictureEncoder(pictures.PictureOptions(8, "crop", "percentile"))
    for name in ("png palette", "png rgba", "jpeg grey", "jpeg rgb"):
        for _ in range(40):
            data = bytearray(FILES[name])
            for place in RNG.integers(2, len(data), 3):
                data[place] = RNG.integers(256)
            try:
                assert len(encoder.encode(bytes(data))) > 60
            except pictures.BadImage as error:
                assert str(error).isprintable()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"resolution": 0}, "--resolution=0: must be at least 1 pixel"),
        ({"resolution": 8, "aspect": "fit"}, "--aspect=fit: must be one of stretch, pad, crop"),
        ({"resolution": 8, "contrast": "MAX"}, "--contrast=MAX: must be one of none, max, percentile"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(InputError, match=text):
        pictures.PictureOptions(**options)


def _turned(number, mode="L"):
    picture = Image.fromarray(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6).repeat(8, 0).repeat(8, 1))
    exif = Image.Exif()
    exif[0x0110], exif[0x0112] = "a camera", number
    return _file(np.asarray(picture), "JPEG", mode, exif=exif, quality=100)


@pytest.mark.parametrize("number", range(1, 9))
def test_exif_orientation(number):
    data = _turned(number)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert headers.find_orientation(data) == number
    np.testing.assert_allclose(pictures.read_grey(data) * 255, upright, atol=1)
    np.testing.assert_allclose(image_ops.decode_grey_float(tf.constant(data))[..., 0], upright, atol=1)
    made = tf.io.decode_png(_encoder(32).encode(data))[..., 0].numpy().astype(int)
    plain = tf.io.decode_png(_encoder(32).encode(_file(upright, "PNG")))[..., 0].numpy()
    np.testing.assert_allclose(made, plain, atol=2)


def test_cmyk_and_palette():
    red = np.zeros((8, 8, 3), np.uint8) + np.array([200, 30, 60], np.uint8)
    grey = 0.299 * 200 + 0.587 * 30 + 0.114 * 60
    image = Image.fromarray(red)
    for kind, mode in (("JPEG", "CMYK"), ("PNG", "P")):
        stream = io.BytesIO()
        (image.quantize(4) if mode == "P" else image.convert(mode)).save(stream, kind)
        np.testing.assert_allclose(pictures.read_grey(stream.getvalue()) * 255, grey, atol=4)


def test_used_bits():
    assert pictures.count_used_bits(_png(np.array([[0, 4095]], ">u2"), 16, 0)) == 12
    assert pictures.count_used_bits(_file(np.zeros((2, 2), np.uint8))) is None
    assert pictures.count_used_bits(b"") is None
