"""Currencies of payments, by the number of decimals of their minor unit.

Source: ISO 4217, list one, as published for 2026-01-01 (SIX Interbank Clearing, the standard's maintenance agency).
Codes without a minor unit (XAU, XDR, XXX, ...) are left out: an amount in their minor units has no meaning.
"""

from typing import Final

_BY_DECIMALS: Final = {
    0: ("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD "
        "CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP "
        "GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK "
        "LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO "
        "NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS "
        "SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST "
        "XAD XCD XCG YER ZAR ZMW ZWG"
    ),
    3: ("BHD IQD JOD KWD LYD OMR TND"),
    4: ("CLF UYW"),
}

DECIMALS: Final[dict[str, int]] = {code: decimals for decimals, codes in _BY_DECIMALS.items() for code in codes.split()}
"""Decimals of the minor unit by currency code: 100 minor units of EUR (2) are one euro, one JPY (0) is one yen."""
