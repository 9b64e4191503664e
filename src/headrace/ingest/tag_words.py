"""What other people's tag lists call things: headings, types, kinds, units, numbers.

Lists come from Excel, from engineering tools of PLCs, from historians, in the language of whoever wrote them. What
is understood here is put into Headrace's words; what is not is kept as it stands, and whoever checks it says so.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

from headrace.core.layouts import DTYPES, Kind

STRING = "string"
"""Value type of texts: they become codes."""

_HEADINGS = {
    "path": "path isa95 isa95path topicpath fullpath ruta pfad chemin",
    "adapter": "adapter connector source quelle",
    "device": "device devicename machine machinename equipment asset gerat geratename maschine anlage equipo "
    "dispositivo maquina appareil machineid plc sps controller station aparato",
    "signal": "signal signalname tag tagname tagid name point pointname variable variablename symbol symbolname item "
    "parameter messstelle messpunkt bezeichner bezeichnung senal etiqueta nombre nom mesure sensor channel kanal",
    "url": "url uri endpoint endpunkt connection verbindung conexion",
    "address": "address addr adresse direccion register registeraddress modbusaddress registeradresse nodeid node "
    "offset reference topic",
    "dtype": "type datatype dtype valuetype typ datentyp tipo tipodedato typededonnees dataformat format encoding",
    "unit": "unit units uom eu engunit engunits engineeringunit engineeringunits einheit unidad unite unidades",
    "kind": "kind signaltype signalkind class art clase",
    "low": "low min minimum rangelow lowlimit lolimit eulo eulow lowerlimit untergrenze minimo messbereichanfang",
    "high": "high max maximum rangehigh highlimit hilimit euhi euhigh upperlimit obergrenze maximo messbereichende",
    "labels": "labels states statetext statetexts enum enumeration zustande estados etats",
    "interval": "interval scanrate scantime pollrate pollinterval cycle cycletime zyklus abtastrate intervalo periode",
    "value": "value samplevalue example wert valor valeur beispiel sample currentvalue",
    "quality": "quality status qualitat calidad",
}  # fmt: skip
HEADINGS: Mapping[str, str] = {word: column for column, words in _HEADINGS.items() for word in words.split()}
"""Word, as `plain_word` has it → column of a tag row."""

_TYPES = {
    "u8": "u8 uint8 byte usint bool boolean bit bin binary digital",
    "i8": "i8 int8 sint sbyte",
    "u16": "u16 uint16 uint word ushort unsigned unsignedshort unsignedint16 unsigned16",
    "i16": "i16 int16 int short integer signedint16 signed16 signedshort",
    "u32": "u32 uint32 udint dword ulong unsignedint32 unsigned32 unsignedlong",
    "i32": "i32 int32 dint long signedint32 signed32",
    "u64": "u64 uint64 ulint lword unsignedint64 unsigned64",
    "i64": "i64 int64 lint signedint64 signed64",
    "f32": "f32 float32 float real single ieee754 float4",
    "f64": "f64 float64 double lreal float8",
    STRING: "string str text wstring char varchar",
}
_TYPE_OF = {word: dtype for dtype, words in _TYPES.items() for word in words.split()}
_BOOLEANS = frozenset(["bool", "boolean", "bit", "bin", "binary", "digital"])

_KINDS = {
    "analog": "analog analogue analoginput ai ao measurement messwert continuous numeric",
    "discrete": "discrete digital di do bool boolean binary status state enum multistate",
    "counter": "counter totalizer totaliser total accumulator pulse zahler contador compteur count",
    "event": "event alarm",
    "waveform": "waveform",
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}

UNITS: tuple[str, ...] = (
    "%", "%RH", "1/min", "1/s", "A", "GJ", "GW", "GWh", "Hz", "J", "K", "L", "L/h", "L/min", "L/s", "MJ", "MPa", "MW", "MWh",
    "N", "NTU", "Nm", "Nm3/h", "Pa", "V", "VA", "W", "Wh", "bar", "cm", "cm2", "cm3", "cmH2O", "cos", "d", "dB", "dBA", "dBm",
    "deg", "degC", "degF", "g", "g/cm3", "g/L", "g/m3", "gal/min", "h", "hPa", "in", "kA", "kHz", "kJ", "kJ/kg", "kN", "kNm",
    "kPa", "kV", "kVA", "kVAh", "kW", "kWh", "kg", "kg/h", "kg/m3", "kg/min", "kg/s", "km", "km/h", "kohm", "kvar", "kvarh",
    "lb", "lbf", "lx", "m", "m/min", "m/s", "m/s2", "m2", "m3", "m3/h", "m3/min", "m3/s", "mA", "mL", "mL/min", "mPa.s", "mV",
    "mbar", "mg", "mg/L", "mg/m3", "min", "mm", "mm/min", "mm/s", "mm2", "mm3", "mol/L", "ms", "mol", "ohm", "pH", "pcs",
    "pcs/h", "pcs/min", "ppb", "ppm", "psi", "rad", "rad/s", "rpm", "s", "t", "t/h", "uA", "uS/cm", "mS/cm", "ug/m3", "um",
    "us", "var", "ft", "ft3/min", "g/kg", "GPa", "MHz", "N/mm2", "W/m2", "kW/m2",
)  # fmt: skip
"""Units that are known, as they are written here; others are kept as they are."""
_UNIT_ALIASES = {
    "degC": "°C|ºC|℃|deg C|degrees C|degree celsius|degrees celsius|celsius|grad C|grad celsius|C",
    "degF": "°F|ºF|℉|deg F|degrees F|fahrenheit|F",
    "K": "kelvin", "deg": "°|degree|degrees|grad|deg.", "%": "percent|pct|prozent|por ciento|per cent|%.",
    "%RH": "% RH|%rF|% rF|%r.H.|RH%|% r.H.", "bar": "bars|bar(g)|barg|bar g", "rpm": "r/min|rev/min|U/min|upm|min-1|min⁻¹|RPM",
    "uS/cm": "µS/cm|μS/cm", "um": "µm|μm|micron", "us": "µs|μs", "uA": "µA|μA", "ug/m3": "µg/m³|μg/m³|µg/m3|μg/m3",
    "m3/h": "m³/h|cbm/h|m3/hr|m³/hr|m^3/h", "m3": "m³|m^3|cbm", "m2": "m²|m^2|qm", "m/s2": "m/s²|m/s^2", "cm3": "cm³|cc|cm^3",
    "mm2": "mm²", "mm3": "mm³", "cm2": "cm²", "kg/m3": "kg/m³", "g/cm3": "g/cm³", "g/m3": "g/m³", "mg/m3": "mg/m³",
    "m3/min": "m³/min", "m3/s": "m³/s", "Nm3/h": "Nm³/h", "N/mm2": "N/mm²", "W/m2": "W/m²", "kW/m2": "kW/m²", "ft3/min": "cfm",
    "gal/min": "gpm", "ohm": "\u2126|\u03a9|ohms", "kohm": "k\u2126|k\u03a9", "L": "l|liter|litre|litres|Liter", "L/min": "l/min|lpm|l/m",
    "L/h": "l/h|l/hr", "L/s": "l/s", "mL": "ml", "mL/min": "ml/min", "mg/L": "mg/l", "g/L": "g/l", "mol/L": "mol/l", "s": "sec|secs|seconds|sek",
    "min": "minutes|mins|minuten", "h": "hr|hrs|hour|hours|std|stunden", "d": "day|days|tage", "ms": "msec", "pcs": "pieces|stk|stück|units",
    "V": "volt|volts", "A": "amp|amps|ampere", "W": "watt|watts", "Hz": "hertz|hz", "kW": "KW|kw", "kWh": "KWH|kwh|KWh", "kVA": "KVA",
    "Nm": "N.m|N·m|N m", "kPa": "KPa|kpa", "mbar": "mBar|millibar", "psi": "psig|PSI", "t": "tonne|tonnes|to", "lx": "lux",
    "": "-|--|n/a|na|none|ohne|1|[-]|[]|dimensionless|no unit",
}  # fmt: skip
_UNIT_OF = {alias: unit for unit, aliases in _UNIT_ALIASES.items() for alias in aliases.split("|")}
_UNIT_OF_LOWER = {text.lower(): unit for text, unit in _UNIT_OF.items() if len(text) > 2}
UNIT_CHARACTERS_MAX = 32
_NUMBER = re.compile(r"[+-]?\d[\d.,' \u00a0\u202f]*(?:[eE][+-]?\d+)?")
_STATE = re.compile(r"\s*(\d+)\s*[=:]\s*([^;,|]*)")


def plain_word(text: str) -> str:
    """A word without accents, capitals, spaces and signs: ``Gerät-Name`` → ``geratname``."""
    parted = unicodedata.normalize("NFKD", text.casefold().replace("ß", "ss"))
    return "".join(char for char in parted if char.isalnum())


def column_of(heading: str) -> str | None:
    """The column of a tag row that a heading means; None where it is not understood.

    What stands in brackets is passed over: ``Unit (SI)`` is a unit.
    """
    for text in (heading, re.sub(r"[(\[].*?[)\]]", "", heading)):
        found = HEADINGS.get(plain_word(text))
        if found is not None:
            return found
    return None


def dtype_of(text: str) -> str | None:
    """A value type in Headrace's words; None where it is not understood."""
    word = plain_word(text)
    return word if word in DTYPES else _TYPE_OF.get(word)


def is_boolean(text: str) -> bool:
    """Whether a type is one of two states."""
    return plain_word(text) in _BOOLEANS


def kind_of(text: str) -> str | None:
    """A kind of signal by its name; None where it is not understood."""
    word = plain_word(text)
    return word if word.upper() in Kind.__members__ else _KIND_OF.get(word)


def unit_of(text: str) -> str:
    """A unit as Headrace writes it, where it is known under another spelling; else as it stands."""
    text = text.strip()
    if text in UNITS:
        return text
    if len(text) > 2 and text.startswith("[") and text.endswith("]") and text not in _UNIT_OF:
        return unit_of(text[1:-1])
    return _UNIT_OF.get(text, _UNIT_OF_LOWER.get(text.lower(), text))


def number_of(text: str) -> float | None:
    """A number with a decimal point or comma, and with or without marks between thousands; None where it is none.

    ``1,5`` is one and a half, ``1.234,5`` and ``1,234.5`` are a thousand and more; one mark alone is decimal.
    """
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    digits = re.sub(r"[' \u00a0\u202f]", "", text)
    last = max(digits.rfind("."), digits.rfind(","))
    if last >= 0:
        mark, whole = digits[last], digits[:last]
        # The same mark several times parts thousands.
        if mark in whole:
            digits = digits.replace(mark, "")
        else:
            digits = whole.replace("." if mark == "," else ",", "") + "." + digits[last + 1 :]
    try:
        number = float(digits)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def labels_of(text: str) -> Sequence[str] | None:
    """Names of states from ``0=stopped; 1=running`` or ``stopped|running``; None where numbers are missing."""
    states = _STATE.findall(text)
    if states and len(states) == len(re.split(r"[;,|]", text.strip().rstrip(";,|"))):
        by_code = {int(code): name.strip() for code, name in states}
        return (
            [by_code[code] for code in range(len(by_code))]
            if set(by_code) == set(range(len(by_code)))
            else None
        )
    mark = next((mark for mark in "|;," if mark in text), None)
    return [text.strip()] if mark is None else [one.strip() for one in text.split(mark)]
