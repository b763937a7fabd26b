#!/bin/bash
# Space: endless overwriting at 50, 80 and 90 %, filling up and emptying, what comes back and when, instant copies while segments are
# cleaned. TREERING_ENDURANCE_MIB: how much is overwritten at each share (64 on stores of 256 MiB; with LONG=1 40 GiB on stores of 2 GiB).
# TREERING_ENDURANCE_SHARES: at these shares. TREERING_ENDURANCE_CAPACITY: only the overwriting, on stores of so many MiB.
# SEED: what is overwritten and copied (1).
# long
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need python3
capacity=256
fills=1
copies=60
copy_mib=4
[ "$LONG" = 1 ] && capacity=2048 fills=20 copies=1000 copy_mib=100
capacity=${TREERING_ENDURANCE_CAPACITY:-$capacity}
total=${TREERING_ENDURANCE_MIB:-$([ "$LONG" = 1 ] && echo 40960 || echo 64)}
seed=${SEED:-1}

segment=$((capacity / 64))
# What the store takes of the host, in MiB.
held() { du -sm "$1/segments" | cut -f1; }
free_bytes() { df --output=avail -B1 "$1" | tail -n 1 | tr -d ' '; }
size_bytes() { df --output=size -B1 "$1" | tail -n 1 | tr -d ' '; }

# MARK: endurance

for share in ${TREERING_ENDURANCE_SHARES:-50 80 90}; do
    S=$WORK/endurance-$share M=$WORK/mnt-$share
    "$TREERING" format "$S" --capacity "${capacity}M" >/dev/null
    start_mount "$S" "$M"
    # The files' blocks, their records and the index are to come to this share of what df calls the size.
    fill=$(($(size_bytes "$M") / 104 * share))
    check "overwriting at $share %" timeout 3000 python3 "$HERE/space/endurance.py" "$M" "$fill" $((total << 20)) "$seed"
    amplification=$(figure "$M" write_amplification_percent)
    say "    $share %: write amplification $amplification %, $(figure "$M" segments_in_use) segments in use, $(figure "$M" cleaned_segments) cleaned"
    equal "nothing damaged at $share %" 0 "$(figure "$M" corruptions)"
    equal "the store keeps to its capacity at $share %" yes "$([ "$(held "$S")" -le $((capacity + 16)) ] && echo yes)"
    stop_mount "$S" "$M"
    check_store "$S"
    rm -rf "$S"
done

[ -z "${TREERING_ENDURANCE_CAPACITY:-}" ] || finish

# MARK: full

S=$WORK/full M=$WORK/mnt-full
"$TREERING" format "$S" --capacity "${capacity}M" >/dev/null
start_mount "$S" "$M"
before=$(free_bytes "$M")
for _ in $(seq $fills); do
    for kind in data tiny directories xattrs; do
        # Tiny things fill a small store; a large one first gets something else.
        if [ "$kind" != data ]; then
            # In steps, since it takes more than its own size.
            for _ in 1 2 3; do
                ballast=$((($(free_bytes "$M") - 24000000) / 10 * 9))
                [ "$ballast" -gt 0 ] && head -c "$ballast" /dev/zero >>"$M/ballast"
            done
        fi
        count=$(timeout 900 python3 "$HERE/space/fill.py" "$M/full" "$kind" 2>"$WORK/fill.err")
        equal "ENOSPC ends filling with $kind" yes "$([ "${count:-0}" -gt 20 ] && echo yes || cat "$WORK/fill.err")"
        check "rm -rf of a store full of $kind" timeout 300 rm -rf "$M/full" "$M/ballast"
        # The kernel tells of what it has forgotten when it comes to it.
        for _ in $(seq 50); do
            after=$(free_bytes "$M")
            [ "$after" -gt $((before / 10 * 9)) ] && break
            sleep 0.1
        done
        equal "df has the space back at once ($kind)" yes "$([ "$after" -gt $((before / 10 * 9)) ] && echo yes || echo "$after of $before")"
        check "writing after a store full of $kind" dd if=/dev/zero of="$M/again" bs=1M count=20 status=none
        rm "$M/again"
    done
done
# Eight are kept at hand, and those that are in use.
for _ in $(seq 20); do [ "$(held "$S")" -le $((segment * 12)) ] && break; sleep 0.5; done
equal "dead segments go back to the host when the mount is idle" yes "$([ "$(held "$S")" -le $((segment * 12)) ] && echo yes || held "$S")"
check "treering clean of a mount without files" "$TREERING" clean "$M"
equal "and those at hand on request" yes "$([ "$(held "$S")" -le $((segment * 6)) ] && echo yes || held "$S")"
stop_mount "$S" "$M"
check_store "$S"
rm -rf "$S"

# MARK: what dies as a whole costs nothing to free

S=$WORK/whole M=$WORK/mnt-whole
"$TREERING" format "$S" --capacity "${capacity}M" >/dev/null
start_mount "$S" "$M"
for _ in 1 2 3 4; do
    head -c $((capacity * 1048576 / 2)) /dev/zero >"$M/large" || fail "writing half of the store"
    rm "$M/large"
done
sync -f "$M"
equal "the space of a removed file is used again without a cleaner" 0 "$(figure "$M" moved_bytes)"

# MARK: cleaning on request

for number in $(seq 200); do head -c 200000 /dev/urandom >"$M/f$number"; done
"$TREERING" sync "$M"
for number in $(seq 200); do [ $((number % 4)) = 0 ] || rm "$M/f$number"; done
check "treering clean" "$TREERING" clean "$M"
equal "after cleaning little is held that is dead" yes "$([ "$(held "$S")" -le $((segment * 6 + 12)) ] && echo yes || held "$S")"
expect_error "treering clean of what is no mount" "no Treering store is mounted there" "$TREERING" clean "$WORK"
stop_mount "$S" "$M"
check_store "$S"
rm -rf "$S"

# MARK: punching

S=$WORK/punch M=$WORK/mnt-punch
"$TREERING" format "$S" --capacity "${capacity}M" >/dev/null
start_mount "$S" "$M"
# A quarter dies, in large pieces: too little for the cleaner at rest.
for number in $(seq 40); do
    head -c 600000 /dev/urandom >"$M/gone$number"
    head -c 1500000 /dev/urandom >"$M/kept$number"
done
(cd "$M" && sha256sum kept*) >"$WORK/sums"
"$TREERING" sync "$M"
before=$(held "$S")
rm "$M"/gone*
for _ in $(seq 20); do [ "$(figure "$M" punched_bytes)" -gt 6000000 ] && break; sleep 1; done
sleep 1
equal "what died between living files goes back to the host" yes \
    "$([ "$(held "$S")" -le $((before - 5)) ] && echo yes || echo "$(held "$S") of $before MiB, $(figure "$M" punched_bytes) bytes punched")"
say "    $(figure "$M" punched_bytes) of 24000000 dead bytes punched, $(figure "$M" moved_bytes) moved"
check "what lives is whole" sh -c "cd $M && sha256sum -c $WORK/sums"
stop_mount "$S" "$M"
check_store "$S"
rm "$S/index"
"$TREERING" check "$S" --rebuild-index >/dev/null
equal "an index is made anew though data was punched" 1 $?
check_store "$S"
start_mount "$S" "$M"
check "and it finds what lives" sh -c "cd $M && sha256sum -c $WORK/sums"

# MARK: another capacity

check "a mounted store becomes larger" "$TREERING" resize "$M" $((capacity * 2))M
equal "df shows it" yes "$([ "$(size_bytes "$M")" -gt $((capacity * 1600000)) ] && echo yes || size_bytes "$M")"
head -c $((capacity * 900000)) /dev/zero >"$M/fill" || fail "filling what the old capacity would not hold"
expect_error "what does not fit is refused" "does not fit into [0-9]*[MG]: what is used and the reserve need" "$TREERING" resize "$M" "${capacity}M"
rm "$M/fill"
check "a mounted store becomes smaller" "$TREERING" resize "$M" $((capacity / 4 * 3))M
check "what lives is there" sh -c "cd $M && sha256sum -c $WORK/sums"
equal "the host has the rest back" yes "$([ "$(held "$S")" -le $((capacity / 4 * 3)) ] && echo yes || held "$S")"
check "and it can be written to" dd if=/dev/zero of="$M/again" bs=1M count=20 status=none
expect_error "resize wants a size" "SIZE must be a size" "$TREERING" resize "$M" much
stop_mount "$S" "$M"
check_store "$S"
check "a store that is not mounted becomes larger" "$TREERING" resize "$S" "${capacity}M"
check "and smaller" "$TREERING" resize "$S" $((capacity / 4 * 3))M
expect_error "less than what is used is refused" "does not fit" "$TREERING" resize "$S" 64M
check_store "$S"
expect_error "resize of what is neither" "neither a mounted Treering store nor a store" "$TREERING" resize "$WORK" 1G
start_mount "$S" "$M"
check "what lives outlives it all" sh -c "cd $M && sha256sum -c $WORK/sums"
equal "what was written since formatting is known" yes "$([ "$(figure "$M" appended_since_format_bytes)" -gt $((capacity * 900000)) ] && echo yes)"
stop_mount "$S" "$M"
rm -rf "$S"

# MARK: instant copies

S=$WORK/copies M=$WORK/mnt-copies
"$TREERING" format "$S" --capacity "${capacity}M" >/dev/null
start_mount "$S" "$M" clean=eager
check "copies, overwritten and deleted while segments are cleaned" \
    timeout 3000 python3 "$HERE/space/copies.py" "$M" $copies $((copy_mib << 20)) "$seed"
rm -f "$M/original"
stop_mount "$S" "$M"
check_store "$S"
living=$(figure "$S" live_bytes)
equal "nothing lives at the end but the root" yes "$([ "${living:-999999}" -lt 4096 ] && echo yes || echo "$living")"
rm -rf "$S"
finish
