import io
import pathlib
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from tfrecords_builder.images import dicom, headers, pictures

pydicom = pytest.importorskip("pydicom")


@pytest.fixture(autouse=True)
def _import_anew():
    dicom._pydicom.cache_clear()  # pytest gives each test its own filters of warnings, and this sets one


STORED = np.array([[0, 1000, 2000], [3000, 4000, 4095]], np.uint16)


def _file(pixels=STORED, bits=12, syntax=None, raw=None, **tags):
    """A file of uint8, uint16 or int16 pixels [H, W] or [H, W, 3]; tags replace (None: leave out) what it says."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax or pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = min(bits, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    content = pixels.tobytes() if raw is None else raw
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        content = pydicom.encaps.encapsulate([content])
    dataset.add_new("PixelData", "OB" if pixels.itemsize == 1 else "OW", content + b"\0" * (len(content) % 2))
    for name, value in tags.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _table(entries, *, first=0, bits=8, words=True):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    kind = "<u2" if words else "<u1"
    item.add_new("LUTData", "OW", np.array(entries, kind).tobytes())
    return pydicom.Sequence([item])


def _reason(data):
    with pytest.raises(pictures.BadImage) as caught:
        dicom.decode(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
    return str(caught.value)


def _real(name):
    path = pydicom.data.get_testdata_file(name, download=False)
    if not path:
        pytest.skip(f"{name} is in the package pydicom-data, which is not installed")
    return pathlib.Path(path).read_bytes()


def _expect(data, expected):
    grey = dicom.decode(data)
    assert grey.dtype == np.float32 and grey.min() >= 0 and grey.max() <= 1
    np.testing.assert_allclose(grey, expected, atol=1e-6)


def test_without_a_window_from_minimum_to_maximum():
    _expect(_file(), STORED / 4095)
    _expect(_file(STORED + 1, 13), STORED / 4095)
    _expect(_file(STORED, RescaleSlope=2, RescaleIntercept=-1024), STORED / 4095)
    _expect(_file(STORED, RescaleSlope=-1, RescaleIntercept=0), 1 - STORED / 4095)
    _expect(_file(STORED.astype(np.int16) - 2000, 16), STORED / 4095)
    _expect(_file(np.array([[5, 5], [5, 5]], np.uint8)), np.zeros((2, 2)))


def test_monochrome1_is_inverted_once():
    _expect(_file(PhotometricInterpretation="MONOCHROME1"), 1 - STORED / 4095)
    _expect(_file(PresentationLUTShape="INVERSE"), 1 - STORED / 4095)
    _expect(_file(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"), 1 - STORED / 4095)
    _expect(_file(PresentationLUTShape="IDENTITY"), STORED / 4095)


def test_windows():
    # LINEAR: 0 up to center - 0.5 - (width - 1) / 2, 1 from center - 0.5 + (width - 1) / 2, so from 1000 to 3000 here.
    window = {"WindowCenter": 2000.5, "WindowWidth": 2001}
    _expect(_file(**window), [[0, 0, 0.5], [1, 1, 1]])
    _expect(_file(**window, VOILUTFunction="LINEAR"), [[0, 0, 0.5], [1, 1, 1]])
    exact = {"WindowCenter": 2000, "WindowWidth": 4000, "VOILUTFunction": "LINEAR_EXACT"}
    _expect(_file(**exact), [[0, 0.25, 0.5], [0.75, 1, 1]])
    sigmoid = {**exact, "VOILUTFunction": "SIGMOID"}
    _expect(_file(**sigmoid), 1 / (1 + np.exp(-(STORED.astype(float) - 2000) / 1000)))
    _expect(_file(**window, PhotometricInterpretation="MONOCHROME1"), [[1, 1, 0.5], [0, 0, 0]])
    _expect(_file(WindowCenter=[2000.5, 7], WindowWidth=[2001, 9]), [[0, 0, 0.5], [1, 1, 1]])
    _expect(_file(WindowCenter=2001, WindowWidth=1), [[0, 0, 0], [1, 1, 1]])
    # Window values are those after the rescale: from 1500 to 2500 of x / 2 + 500.
    _expect(
        _file(RescaleSlope=0.5, RescaleIntercept=500, WindowCenter=1500.5, WindowWidth=2001),
        [[0, 0.25, 0.5], [0.75, 1, 1]],
    )


@pytest.mark.parametrize("window", [{"WindowWidth": 0}, {"WindowWidth": 0.5}, {"WindowWidth": ""}, {}])
def test_a_window_without_width_is_none(window):
    _expect(_file(WindowCenter=100, **window), STORED / 4095)


def test_lookup_tables():
    stored = np.array([[0, 9, 10, 11, 12, 200]], np.uint8)
    voi = _table([0, 100, 255], first=10)
    expected = np.array([[0, 0, 0, 100, 255, 255]]) / 255
    _expect(_file(stored, VOILUTSequence=voi), expected)
    _expect(_file(stored, VOILUTSequence=voi, WindowCenter=1, WindowWidth=2), expected)
    _expect(_file(stored, VOILUTSequence=_table([0, 100, 255, 0], first=10, words=False)), [[0, 0, 0, 100 / 255, 1, 0]])
    deep = _file(stored, VOILUTSequence=_table([0, 1000, 4095], first=10, bits=12))
    _expect(deep, np.array([[0, 0, 0, 1000, 4095, 4095]]) / 4095)
    modality = _table([0, 5, 10], first=10, bits=16)
    _expect(_file(stored, ModalityLUTSequence=modality), [[0, 0, 0, 0.5, 1, 1]])
    _expect(
        _file(stored, ModalityLUTSequence=modality, WindowCenter=5.5, WindowWidth=21), [[0.25] * 3 + [0.5, 0.75, 0.75]]
    )


def test_colour():
    colour = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    luma = colour @ [0.299, 0.587, 0.114] / 255
    _expect(_file(colour), luma)
    _expect(_file(colour.astype(np.uint16) * 16, 12), luma * 255 * 16 / 4095)
    ycc = np.asarray(Image.fromarray(colour).convert("YCbCr"))
    grey = dicom.decode(_file(ycc, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(grey, luma, atol=0.01)


def test_palette():
    index = np.array([[0, 1, 2, 2]], np.uint8)
    names = ("Red", "Green", "Blue")
    tables = {f"{name}PaletteColorLookupTableDescriptor": [3, 0, 16] for name in names}
    channels = ([0, 65535, 65535], [0, 0, 65535], [0, 0, 65535])
    for name, channel in zip(names, channels, strict=True):
        tables[f"{name}PaletteColorLookupTableData"] = np.array(channel, "<u2").tobytes()
    _expect(_file(index, PhotometricInterpretation="PALETTE COLOR", **tables), [[0, 0.299, 1, 1]])


def test_real_chest_radiograph():
    data = _real("RG1_UNCR.dcm")  # MONOCHROME1, 15 bits, window 0..30000
    grey = dicom.decode(data)
    stored = pydicom.dcmread(io.BytesIO(data)).pixel_array.astype(float)
    assert grey.shape == stored.shape == (1955, 1841)
    np.testing.assert_allclose(grey, 1 - (stored - (14999.5 - 29999 / 2)) / 29999, atol=1e-6)
    np.testing.assert_array_equal(dicom.decode(_real("RG1_J2KR.dcm")), grey)  # JPEG 2000, lossless
    assert np.abs(dicom.decode(_real("RG1_J2KI.dcm")) - grey).mean() < 0.01  # lossy
    encoder = pictures.PictureEncoder(pictures.PictureOptions(32, "pad", "percentile"))
    picture = np.asarray(Image.open(io.BytesIO(encoder.encode(data))))
    assert picture.shape == (32, 32) and picture[:, 0].max() == 0 and picture.max() > 200
    np.testing.assert_array_equal(pictures.read_grey(data), grey)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("MR_small_RLE.dcm", (64, 64)),
        ("MR_small_bigendian.dcm", (64, 64)),
        ("MR_small_jp2klossless.dcm", (64, 64)),
        ("SC_rgb_jpeg_dcmtk.dcm", (100, 100)),
        ("SC_rgb_rle.dcm", (100, 100)),
        ("SC_ybr_full_422_uncompressed.dcm", (100, 100)),
        ("examples_palette.dcm", (350, 800)),
        ("vlut_04.dcm", (512, 512)),
        ("mlut_18.dcm", (512, 512)),
    ],
)
def test_other_real_files(name, shape):
    grey = dicom.decode(_real(name))
    assert grey.shape == shape and grey.dtype == np.float32 and 0 <= grey.min() < grey.max() <= 1


@pytest.mark.parametrize(
    "encoding", ["MR_small_RLE", "MR_small_bigendian", "MR_small_jp2klossless", "MR_small_implicit"]
)
def test_encodings_of_one_image_agree(encoding):
    np.testing.assert_array_equal(dicom.decode(_real(f"{encoding}.dcm")), dicom.decode(_real("MR_small.dcm")))


def test_refuses_what_is_no_single_image():
    two = np.zeros((2, 3), np.uint8)
    assert _reason(_file(two, NumberOfFrames=2, raw=bytes(12))) == "is DICOM with 2 frames, not one image"
    assert _reason(_file(two, PixelData=None)) == "is DICOM without an image, or truncated"
    assert _reason(_file(two, Rows=None)) == "is DICOM without an image, or truncated"
    assert _reason(_real("rtplan.dcm")) == "is DICOM without an image, or truncated"
    assert "photometric interpretation HSV" in _reason(_file(two, PhotometricInterpretation="HSV"))
    assert "VOI LUT function CUBIC" in _reason(_file(two, VOILUTFunction="CUBIC", WindowCenter=1, WindowWidth=2))
    _expect(_file(NumberOfFrames=1), STORED / 4095)


def test_refuses_sizes(monkeypatch):
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(lambda _: pytest.fail("decoded")))
    assert _reason(_file(Rows=60000, Columns=60000)).startswith("is too large: declares 60000 x 60000 pixels")
    assert _reason(_file(Rows=0)) == "has no pixels: declares 3 x 0"
    monkeypatch.setattr(headers, "MAX_PIXELS", 5)
    assert _reason(_file()).startswith("is too large: declares 3 x 2 pixels, the limit is 5")


def test_refuses_what_is_compressed_at_another_size():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((50, 70), np.uint8)).save(stream, "JPEG")
    small = np.zeros((5, 7), np.uint8)
    jpeg = {"syntax": pydicom.uid.JPEGBaseline8Bit, "raw": stream.getvalue()}
    assert _reason(_file(small, **jpeg)) == "is damaged DICOM: 7 x 5 declared, 70 x 50 compressed"
    _expect(_file(np.zeros((50, 70), np.uint8), **jpeg), np.zeros((50, 70)))
    data = _real("MR_small_jp2klossless.dcm")
    start = data.index(b"\xff\x4f\xff\x51")
    bomb = data[: start + 8] + struct.pack(">II", 60000, 60000) + data[start + 16 :]
    assert _reason(bomb) == "is damaged DICOM: 64 x 64 declared, 60000 x 60000 compressed"
    bomb = data[: start + 40] + struct.pack(">H", 9000) + data[start + 42 :]
    assert _reason(bomb) == "is damaged DICOM: 1 channels declared, 9000 compressed"


def test_refuses_a_deflated_data_set():
    assert "deflated" in _reason(_real("image_dfl.dcm"))


def test_names_the_missing_plugin(monkeypatch):
    decoder = type("Decoder", (), {"is_available": False})
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda _: decoder)
    reason = _reason(_file(syntax=pydicom.uid.JPEGLSLossless, raw=b"\xff\xd8"))
    assert "JPEG-LS Lossless Image Compression" in reason
    assert "pip install pylibjpeg pylibjpeg-openjpeg pylibjpeg-libjpeg" in reason


def test_names_a_transfer_syntax_without_decoder():
    assert "MPEG2 Main Profile" in _reason(_file(syntax=pydicom.uid.MPEG2MPML, raw=b"\0\0"))


def test_without_pydicom(monkeypatch):
    data = _file()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert _reason(data) == "is DICOM; install the extra: pip install tfcxr[dicom]"


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_truncated_compressed(name):
    data = _real(name)
    end = data.rindex(b"\xfe\xff\xdd\xe0")  # the delimiter after the pixels; some of these files go on after it
    dicom.decode(data[: end + 8])
    for cut in (0, 1, 100, 1000, end - 300, end - 140):
        assert "DICOM" in _reason(data[: end - cut])


def test_truncated_pixels():
    assert "cannot be decoded" in _reason(_file(raw=STORED.tobytes()[:-2]))
    assert "cannot be decoded" in _reason(_file()[:-2])


def test_damage_anywhere_is_a_bad_image_or_a_picture(capfd, recwarn):
    rng = np.random.default_rng(0)
    for name in ("MR_small.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jp2klossless.dcm"):
        original = _real(name)
        for _ in range(40):
            data = bytearray(original)
            for place in rng.integers(132, len(data), 8):
                data[place] = rng.integers(256)
            try:
                grey = dicom.decode(bytes(data))
                assert grey.ndim == 2 and grey.min() >= 0 and grey.max() <= 1
            except pictures.BadImage as error:
                assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")
    assert not [warning for warning in recwarn if "pydicom" in warning.filename]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_without_preamble_and_transfer_syntax(syntax):
    data = _file(syntax=syntax)
    dataset = pydicom.dcmread(io.BytesIO(data))
    stream = io.BytesIO()
    implicit = syntax == "1.2.840.10008.1.2"
    bare = pydicom.Dataset(dict(dataset.items()))
    pydicom.dcmwrite(stream, bare, implicit_vr=implicit, little_endian=True)
    assert stream.getvalue()[128:132] != b"DICM" and headers.image_format(stream.getvalue()) == "dicom"
    _expect(stream.getvalue(), STORED / 4095)


def test_padding_does_not_count_and_is_black():
    pixels = np.array([[0, 1000, 3000], [4000, 65535, 65535]], np.uint16)
    tags = {"PixelPaddingValue": 65535}
    _expect(_file(pixels, bits=16, **tags), [[0, 0.25, 0.75], [1, 0, 0]])
    _expect(_file(pixels, bits=16, PhotometricInterpretation="MONOCHROME1", **tags), [[1, 0.75, 0.25], [0, 0, 0]])
    _expect(_file(pixels, bits=16, PixelPaddingRangeLimit=4000, **tags), [[0, 1 / 3, 1], [0, 0, 0]])
    np.testing.assert_array_equal(dicom.decode(_file(np.full((2, 2), 7, np.uint16), PixelPaddingValue=7)), 0)


def test_overlays_in_the_upper_bits_are_taken_out():
    marked = STORED | np.uint16(1 << 12)
    with_overlay = _file(marked)
    dataset = pydicom.dcmread(io.BytesIO(with_overlay))
    dataset.add_new(0x60000102, "US", 12)
    stream = io.BytesIO()
    dataset.save_as(stream)
    _expect(stream.getvalue(), STORED / 4095)
    _expect(with_overlay, STORED / 4095)  # without one, the upper bit is a value: all have it


def test_one_frame_with_functional_groups():
    window, rescale = pydicom.Dataset(), pydicom.Dataset()
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 1000.0, 2000.0, "LINEAR_EXACT"
    rescale.RescaleSlope, rescale.RescaleIntercept = 0.5, 0.0
    group = pydicom.Dataset()
    group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [window], [rescale]
    data = _file(NumberOfFrames=1, SharedFunctionalGroupsSequence=[group])
    _expect(data, np.clip(STORED * 0.5 / 2000, 0, 1))


def test_liberties_with_slopes_and_tables():
    _expect(_file(RescaleSlope=0, RescaleIntercept=0), STORED / 4095)
    levels = np.arange(4096)
    _expect(_file(VOILUTSequence=_table(levels, bits=16)), STORED / 4095)  # declares 16 bits, uses 12
    signed = np.array([[-2, -1, 0, 1]], np.int16)
    data = _file(signed, bits=16, VOILUTSequence=_table([0, 100, 200, 255], first=2**16 - 2))
    _expect(data, np.array([[0, 100, 200, 255]]) / 255)


def test_a_window_of_units_replaces_what_the_file_says():
    stored = np.array([[1024, 1044], [1064, 1104], [1144, 3000]], np.int16)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 600, "WindowWidth": 2800}
    # Units 0, 20, 40, 80, 120, 1976; the brain window is from 0 to 80.
    expected = [[0, 0.25], [0.5, 1], [1, 1]]
    for file in (_file(stored, 16, **tags), _file(stored, 16, PhotometricInterpretation="MONOCHROME1", **tags)):
        np.testing.assert_allclose(dicom.decode(file, (40.0, 80.0)), expected, atol=1e-6)
    assert dicom.decode(_file(stored, 16, **tags))[1, 1] < 0.4  # by its own window
    padded = _file(stored, 16, PixelPaddingValue=3000, **tags)
    assert dicom.decode(padded, (40.0, 80.0))[2, 1] == 0


def test_contrast_of_ct_is_a_window_of_dicom_and_nothing_to_pictures():
    stored = np.full((4, 4), 1064, np.int16)  # 40 units: the middle of the brain window
    file = _file(stored, 16, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=600, WindowWidth=2800)
    encoder = pictures.PictureEncoder(pictures.PictureOptions(2, contrast="brain"))
    assert np.array(Image.open(io.BytesIO(encoder.encode(file)))).tolist() == [[128, 128]] * 2
    assert pictures.read_grey(file, "subdural")[0, 0] == pytest.approx((40 - (80 - 100)) / 200)
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), 77, np.uint8)).save(stream, "png")
    assert np.array(Image.open(io.BytesIO(encoder.encode(stream.getvalue())))).tolist() == [[77, 77]] * 2
