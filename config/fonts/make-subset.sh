#!/bin/sh
# Makes NotoSansSC-Subset.otf from a Noto Sans CJK collection.
#
#   usage: make-subset.sh NotoSansCJK-Bold.ttc [face number, 2 = SC]
#
# Needs Python 3 with fonttools (`pip install fonttools`). The collection comes
# with Debian's package fonts-noto-cjk (OFL-1.1). The subset keeps every
# character of GB 2312 (levels 1 and 2: 6,763 hanzi, and its symbols), ASCII,
# Latin-1, general and CJK punctuation, currency signs and the full-width forms.
set -eu

collection=$1
face=${2:-2}
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
list=$(mktemp)
trap 'rm -f "$list"' EXIT

python3 - "$list" <<'PYTHON'
import sys

wanted = set(range(0x20, 0x7F)) | set(range(0xA0, 0x100))
for high in range(0xA1, 0xF8):
    for low in range(0xA1, 0xFF):
        try:
            wanted.add(ord(bytes([high, low]).decode("gb2312")))
        except (UnicodeDecodeError, TypeError):
            pass
wanted |= set(range(0x2010, 0x2028)) | set(range(0x2030, 0x203C))
wanted |= set(range(0x3000, 0x3018)) | set(range(0xFF01, 0xFF5F)) | set(range(0xFFE0, 0xFFE7))
wanted |= {0x20AC, 0x2116, 0x2122}
with open(sys.argv[1], "w", encoding="utf-8") as out:
    out.write(",".join(f"U+{code:04X}" for code in sorted(wanted)))
PYTHON

python3 -m fontTools.subset "$collection" \
    --font-number="$face" \
    --unicodes-file="$list" \
    --layout-features=kern,ccmp,locl,palt \
    --no-hinting --desubroutinize --drop-tables+=vhea,vmtx,VORG,DSIG,BASE \
    --name-IDs='*' --name-languages='0x409' \
    --output-file="$here/NotoSansSC-Subset.otf"
