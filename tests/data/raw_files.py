"""Small TIFF and DNG files with any tags, written for the tests, and a lossless JPEG encoder."""
import struct
from fractions import Fraction

import numpy as np

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SSHORT, SRATIONAL, FLOAT, DOUBLE, LONG8 = 1, 2, 3, 4, 5, 7, 8, 10, 11, 12, 16
_FORMATS = {SHORT: 'H', LONG: 'I', SSHORT: 'h', FLOAT: 'f', DOUBLE: 'd', LONG8: 'Q'}
#: Tags by name: number and type.
TAGS = {
    'NewSubfileType': (254, LONG), 'ImageWidth': (256, LONG), 'ImageLength': (257, LONG), 'BitsPerSample': (258, SHORT),
    'Compression': (259, SHORT), 'Photometric': (262, SHORT), 'Make': (271, ASCII), 'Model': (272, ASCII),
    'StripOffsets': (273, LONG), 'Orientation': (274, SHORT), 'SamplesPerPixel': (277, SHORT), 'RowsPerStrip': (278, LONG),
    'StripByteCounts': (279, LONG), 'PlanarConfiguration': (284, SHORT), 'Predictor': (317, SHORT), 'TileWidth': (322, LONG),
    'TileLength': (323, LONG), 'TileOffsets': (324, LONG), 'TileByteCounts': (325, LONG), 'SampleFormat': (339, SHORT),
    'JPEGOffset': (513, LONG), 'JPEGCount': (514, LONG), 'ExposureTime': (33434, RATIONAL), 'FNumber': (33437, RATIONAL),
    'CFARepeatPatternDim': (33421, SHORT), 'CFAPattern': (33422, BYTE), 'ISO': (34855, SHORT), 'DateTimeOriginal': (36867, ASCII),
    'FocalLength': (37386, RATIONAL), 'LensModel': (42036, ASCII), 'DNGVersion': (50706, BYTE),
    'DNGBackwardVersion': (50707, BYTE),
    'UniqueCameraModel': (50708, ASCII), 'CFAPlaneColor': (50710, BYTE), 'CFALayout': (50711, SHORT),
    'LinearizationTable': (50712, SHORT), 'BlackLevelRepeatDim': (50713, SHORT), 'BlackLevel': (50714, RATIONAL),
    'BlackLevelDeltaH': (50715, SRATIONAL), 'BlackLevelDeltaV': (50716, SRATIONAL), 'WhiteLevel': (50717, LONG),
    'DefaultScale': (50718, RATIONAL), 'DefaultCropOrigin': (50719, RATIONAL), 'DefaultCropSize': (50720, RATIONAL),
    'ColorMatrix1': (50721, SRATIONAL), 'ColorMatrix2': (50722, SRATIONAL), 'CameraCalibration1': (50723, SRATIONAL),
    'CameraCalibration2': (50724, SRATIONAL), 'AnalogBalance': (50727, RATIONAL), 'AsShotNeutral': (50728, RATIONAL),
    'AsShotWhiteXY': (50729, RATIONAL), 'LinearResponseLimit': (50734, RATIONAL), 'CalibrationIlluminant1': (50778, SHORT),
    'CalibrationIlluminant2': (50779, SHORT), 'ActiveArea': (50829, LONG), 'MaskedAreas': (50830, LONG),
    'CameraCalibrationSignature': (50931, ASCII), 'ProfileCalibrationSignature': (50932, ASCII),
    'RowInterleaveFactor': (50975, LONG),
    'OpcodeList1': (51008, UNDEFINED), 'OpcodeList2': (51009, UNDEFINED), 'OpcodeList3': (51022, UNDEFINED),
    'NoiseProfile': (51041, DOUBLE), 'CalibrationIlluminant3': (52529, SHORT), 'CameraCalibration3': (52530, SRATIONAL),
    'ColorMatrix3': (52531, SRATIONAL), 'IlluminantData1': (52533, UNDEFINED), 'IlluminantData2': (52534, UNDEFINED),
}
MATRIX_A = (0.6461, -0.1164, -0.0857, -0.3825, 1.1597, 0.2534, -0.0416, 0.1540, 0.6039)
MATRIX_D65 = (1.0234, -0.2969, -0.2266, -0.5625, 1.6328, -0.0469, -0.0703, 0.2188, 0.6406)


class Ifd:
    """A directory: values by name or number; ``(type, values)`` chooses another type than the usual one.

    ``data`` is the bytes of its strips or tiles, one or several; ``subs`` and ``exif`` are directories below it.
    """

    def __init__(self, tags, data=None, subs=(), exif=None):
        self.tags, self.subs, self.exif = dict(tags), list(subs), exif
        self.data = [] if data is None else [data] if isinstance(data, bytes) else list(data)


def rational(value, signed):
    """(numerator, denominator) of a number; a pair is kept as it is."""
    if isinstance(value, tuple):
        return value
    limit = 2 ** 31 - 1 if signed else 2 ** 32 - 1
    fraction = Fraction(value).limit_denominator(1_000_000)
    assert abs(fraction.numerator) <= limit
    return fraction.numerator, fraction.denominator


def encode(kind, values, order):
    """(bytes, count) of a value."""
    if kind == ASCII:
        raw = values.encode() + b'\0'
        return raw, len(raw)
    if isinstance(values, bytes):
        return values, len(values)
    values = list(values) if isinstance(values, (tuple, list, np.ndarray)) else [values]
    if kind in (BYTE, UNDEFINED):
        return bytes(values), len(values)
    if kind in (RATIONAL, SRATIONAL):
        pairs = [number for value in values for number in rational(value, kind == SRATIONAL)]
        return struct.pack(f'{order}{len(pairs)}{"i" if kind == SRATIONAL else "I"}', *pairs), len(values)
    return struct.pack(f'{order}{len(values)}{_FORMATS[kind]}', *values), len(values)


def tiff_bytes(ifds, *, order='<', big=False, magic=None, head=b'', tail=False):
    """A file of some directories in a chain.

    ``tail`` lays samples behind all directories, as most cameras do; else each lies before its directory. ``head`` follows the
    header; ``magic`` replaces its version.
    """
    pointer, count_letter, entry_letter = ('Q', 'Q', 'Q') if big else ('I', 'H', 'I')
    size = struct.calcsize(pointer)
    out = bytearray(b'II' if order == '<' else b'MM')
    out += struct.pack(order + 'H', magic or (43 if big else 42))
    out += struct.pack(order + 'HHQ', 8, 0, 0) if big else struct.pack(order + 'I', 0)
    first = len(out) - size
    out += head
    later = []  # (place of a pointer to samples, samples)

    def put(raw):
        out.extend(bytes(-len(out) % 4))
        out.extend(raw)
        return len(out) - len(raw)

    def write(ifd):
        tags = {}
        for name, values in ifd.tags.items():
            if values is None:
                continue
            code, kind = TAGS[name] if isinstance(name, str) else (name, None)
            if kind is None or isinstance(values, tuple) and len(values) == 2 and isinstance(values[1], list):
                kind, values = values
            tags[code] = (kind, values)
        tiled = 322 in tags
        if ifd.data:
            tags.setdefault(325 if tiled else 279, (LONG, [len(chunk) for chunk in ifd.data]))
        if ifd.subs:
            tags[330] = (LONG, [write(sub) for sub in ifd.subs])
        if ifd.exif is not None:
            tags[34665] = (LONG, [write(ifd.exif)])
        places = 324 if tiled else 273
        if ifd.data and not tail:
            tags.setdefault(places, (LONG, [put(chunk) for chunk in ifd.data]))
        elif ifd.data:
            tags.setdefault(places, (LONG, [0] * len(ifd.data)))
        entries = []
        for code in sorted(tags):
            raw, count = encode(*tags[code], order)
            at = None if len(raw) <= size else put(raw)
            entries.append((code, tags[code][0], count, raw.ljust(size, b'\0')
                            if at is None else struct.pack(order + pointer, at), at))
        start = put(struct.pack(order + count_letter, len(entries)))
        for code, kind, count, value, at in entries:
            out.extend(struct.pack(order + 'HH' + entry_letter, code, kind, count) + value)
            if code == places and ifd.data and tail:
                later.append((len(out) - size if at is None else at, ifd.data))
        out.extend(bytes(size))
        return start

    ends = []
    for ifd in ifds:
        ends.append((write(ifd), len(out) - size))
    pointers = [first, *(end for _, end in ends)]
    for place, (start, _) in zip(pointers, ends):
        struct.pack_into(order + pointer, out, place, start)
    for place, chunks in later:
        struct.pack_into(f'{order}{len(chunks)}I', out, place, *[put(chunk) for chunk in chunks])
    return bytes(out)


def pack_bits(mosaic, bits):
    """Samples of any number of bits, the highest first; rows begin on whole bytes."""
    shifts = np.arange(bits - 1, -1, -1)
    return b''.join(np.packbits((row[:, None].astype(np.int64) >> shifts & 1).astype(np.uint8).ravel()).tobytes()
                    for row in mosaic)


def raw_bytes(mosaic, bits=16, order='<'):
    """Plain samples."""
    return mosaic.astype(f'{order}u2').tobytes() if bits == 16 else pack_bits(mosaic, bits)


def mosaic_tags(mosaic, *, bits=16, cfa='rggb', **tags):
    """Tags of the directory of a mosaic."""
    side = {4: 2, 16: 4, 36: 6}[len(cfa)]
    return {'NewSubfileType': 0, 'ImageWidth': mosaic.shape[1], 'ImageLength': mosaic.shape[0], 'BitsPerSample': bits,
            'Compression': 1, 'Photometric': 32803, 'SamplesPerPixel': 1, 'RowsPerStrip': mosaic.shape[0],
            'PlanarConfiguration': 1,
            'CFARepeatPatternDim': (side, side), 'CFAPattern': ['rgb'.index(letter) for letter in cfa],
            'CFAPlaneColor': (0, 1, 2),
            'CFALayout': 1, **tags}


def camera_tags(**tags):
    """Tags of a DNG's first directory."""
    return {'Make': 'Test', 'Model': 'Model', 'Orientation': 1, 'DNGVersion': (1, 4, 0, 0), 'DNGBackwardVersion': (1, 1, 0, 0),
            'UniqueCameraModel': 'Test Model', 'ColorMatrix1': MATRIX_A, 'ColorMatrix2': MATRIX_D65, 'CalibrationIlluminant1': 17,
            'CalibrationIlluminant2': 21, 'AsShotNeutral': (0.5, 1.0, 0.625), **tags}


def random_mosaic(size=(64, 96), *, low=1100, high=15000, seed=0):
    """Samples between two values."""
    return np.random.default_rng(seed).integers(low, high, size).astype(np.uint16)


def write_dng(path, mosaic=None, *, bits=16, cfa='rggb', order='<', data=None, big=False, tail=False, **tags):
    """A DNG of one directory; returns its mosaic. Tags of None are left out."""
    mosaic = random_mosaic() if mosaic is None else mosaic
    levels = {'BlackLevel': 1024, 'WhiteLevel': 16383}
    everything = {**mosaic_tags(mosaic, bits=bits, cfa=cfa), **camera_tags(), **levels, **tags}
    data = raw_bytes(mosaic, bits, order) if data is None else data
    path.write_bytes(tiff_bytes([Ifd(everything, data)], order=order, big=big, tail=tail))
    return mosaic


def write_nested_dng(path, mosaics, *, main=None, order='<', tail=False, **tags):
    """A DNG whose first directory is a small preview, with mosaics below it; ``main`` are tags of the first directory."""
    preview = {'NewSubfileType': 1, 'ImageWidth': 8, 'ImageLength': 4, 'BitsPerSample': (8, 8, 8), 'Compression': 1,
               'Photometric': 2,
               'SamplesPerPixel': 3, 'RowsPerStrip': 4, 'PlanarConfiguration': 1, **camera_tags(), **(main or {})}
    levels = {'BlackLevel': 1024, 'WhiteLevel': 16383}
    subs = [Ifd({**mosaic_tags(mosaic), **levels, **tags}, raw_bytes(mosaic, 16, order)) for mosaic in mosaics]
    path.write_bytes(tiff_bytes([Ifd(preview, bytes(96), subs)], order=order, tail=tail))


def lossless_jpeg(samples, bits=16, components=2):
    """Lossless JPEG (ITU T.81, process 14, predictor 1) of [H, W] samples, as DNG and CR2 files hold them.

    Columns are dealt to the components in turn. One Huffman table of fixed lengths serves all differences.
    """
    height, width = samples.shape
    planes = samples.reshape(height, width // components, components).astype(np.int64)
    out = bytearray(b'\xff\xd8')

    def segment(marker, content):
        out.extend(struct.pack('>BBH', 0xFF, marker, len(content) + 2) + content)

    segment(0xC3, struct.pack('>BHHB', bits, height, width // components, components)
            + b''.join(bytes((number, 0x11, 0)) for number in range(components)))
    # 17 classes of differences: codes of 5 bits, the last of 17 none are of ones only.
    segment(0xC4, bytes((0, 0, 0, 0, 0, 17, *[0] * 11)) + bytes(range(17)))
    segment(0xDA, bytes((components,)) + b''.join(bytes((number, 0)) for number in range(components)) + bytes((1, 0, 0)))
    text = []
    for row in range(height):
        for column in range(width // components):
            for number in range(components):
                above = planes[row - 1, 0, number] if row else 1 << (bits - 1)
                before = planes[row, column - 1, number] if column else above
                difference = int((planes[row, column, number] - before + 32768) % 65536 - 32768)
                length = 16 if difference == -32768 else abs(difference).bit_length()
                text.append(f'{length:05b}')
                if 0 < length < 16:
                    text.append(f'{difference if difference > 0 else difference + (1 << length) - 1:0{length}b}')
    joined = ''.join(text)
    joined += '1' * (-len(joined) % 8)
    for place in range(0, len(joined), 8):
        byte = int(joined[place:place + 8], 2)
        out.append(byte)
        if byte == 0xFF:
            out.append(0)
    return bytes(out + b'\xff\xd9')
