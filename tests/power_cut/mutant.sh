#!/usr/bin/env bash
# Builds the daemon from a copy of the source in which SQLite no longer syncs
# (`PRAGMA synchronous = off` in src/store/connection.rs): what the power cuts must
# catch. The product itself has no such switch.
# Beside the daemon in the target folder: debug/baygate-synchronous-off.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
copy=$target/power-cut/mutant
rm -rf "$copy"
mkdir -p "$copy"
for entry in *; do
    case $entry in
        target) ;;
        # With their times, so that nothing is compiled twice.
        src | Cargo.toml | Cargo.lock) cp -a "$entry" "$copy/" ;;
        *) ln -s "$PWD/$entry" "$copy/$entry" ;;
    esac
done

changed=src/store/connection.rs
sed -i 's/setting(&conn, "synchronous", "full", "2")/setting(\&conn, "synchronous", "off", "0")/' "$copy/$changed"
if [ "$(diff "$changed" "$copy/$changed" | grep -c '^>.*"synchronous", "off", "0"')" != 2 ]; then
    echo "$changed no longer sets synchronous = full in two places: mend $0" >&2
    exit 1
fi
# A package of another name: under the same one cargo would take its library for ours, as it
# tells packages of one name apart by what is below their folder only.
sed -i '/^\[\(package\|\[bin\]\)\]/,/^$/ s/^name = .*/name = "baygate-synchronous-off"/' "$copy/Cargo.toml"
sed -i 's/^name = "baygate"$/name = "baygate-synchronous-off"/' "$copy/Cargo.lock"
grep -q '^\[workspace\]' "$copy/Cargo.toml" || printf '\n[workspace]\n' >> "$copy/Cargo.toml"
touch -r "$changed" "$copy/$changed"
touch -r Cargo.toml "$copy/Cargo.toml"

${CARGO:-cargo} build --locked --quiet --manifest-path "$copy/Cargo.toml" --target-dir "$target" --bin baygate-synchronous-off
