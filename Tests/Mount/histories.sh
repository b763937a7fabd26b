#!/bin/bash
# A mount is killed in one place, the store is mounted in another that does not see its staging (a container with a /dev/shm of its own, another
# user), and then in the first again. Nothing old is put behind what came after it, and whoever goes on without something is told.
# shellcheck source=lib.sh disable=SC2016
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" != 0 ]; then
    say "histories: is run by root, which makes the places, skipped"
    finish
fi
need unshare setpriv fusermount3
chmod 755 "$WORK"
mkdir "$WORK/shm" "$WORK/dev" "$WORK/home"
cp "$TREERING" "$WORK/treering"
chmod 755 "$WORK/treering"
chown nobody "$WORK/home"
# visit.sh STORE FILES SYNC END [OPTIONS] : mounts, says what is there and what mount and stats say, adds files, ends.
declare -f wait_gone >"$WORK/visit.sh"
cat >>"$WORK/visit.sh" <<'P'
set -u
store=$1 files=$2 sync=$3 end=$4 options=${5:-noatime}
m=$store.mnt.$(id -u)
mkdir -p "$m"
timeout 60 "$T" mount "$store" "$m" -o "engine=$ENGINE,$options" 2>&1 | sed 's/^/said: /'
grep -q " $m fuse.treering " /proc/mounts || { echo "not mounted"; exit 1; }
echo "there: $(ls "$m" | sort -V | tr '\n' ' ')"
"$T" stats "$m" --json | tr -d ' "' | grep -E '^(killed_mounts|staging_left_files)'
for name in $files; do echo "$name" >"$m/$name" || exit 1; done
[ "$sync" = sync ] && "$T" sync "$m"
pid=$(head -n 1 "$store/lock" | tr -dc 0-9)
if [ "$end" = kill ]; then kill -9 "$pid"; else fusermount3 -u "$m"; fi
wait_gone "$pid" 10
[ "$end" = kill ] && { fusermount3 -u -z "$m" 2>/dev/null || umount -l "$m"; }
exit 0
P
export T=$WORK/treering ENGINE
# here COMMAND... / there COMMAND... : with the /dev/shm of this machine, and with another one.
here() { timeout 120 unshare -m bash "$@"; }
there() { timeout 120 unshare -m bash -c 'mount --bind "$1" /dev/shm && shift && exec bash "$@"' bash "$WORK/shm" "$@"; }
# user COMMAND... : as an ordinary user with a /dev/fuse for everybody.
user() {
    timeout 120 unshare -m bash -c 'mount -t tmpfs none "$1/dev" && mknod -m 666 "$1/dev/fuse" c 10 229 && mount --bind "$1/dev/fuse" /dev/fuse &&
        shift && exec setpriv --reuid=nobody --regid=nogroup --clear-groups bash "$@"' bash "$WORK" "$@"
}
has() { if grep -qE -- "$2" <<<"$3"; then pass; else fail "$1: '$2' is not in: $3"; fi; }
hasnt() { if grep -qE -- "$2" <<<"$3"; then fail "$1: '$2' is in: $3"; else pass; fi; }

# travel STORE FIRST SECOND WHO : killed in the first place, gone on in the second, mounted in the first.
travel() {
    local store=$1 first=$2 second=$3 what=$4 out
    STORES+=("$store")
    $first "$T" >/dev/null 2>&1
    out=$($first "$WORK/visit.sh" "$store" "a0" sync unmount) || fail "$what, format: $out"
    # Nothing was added in the other place: nothing is lost.
    out=$($first "$WORK/visit.sh" "$store" "a1 a2 a3" - kill) || fail "$what, 1: $out"
    out=$($second -c '"$T" check "$0"' "$store")
    has "$what: check tells before" "not seen here" "$out"
    out=$($second "$WORK/visit.sh" "$store" "" - unmount) || fail "$what, 2: $out"
    has "$what: the other place does not see it" "^there: a0 $" "$out"
    has "$what: and says so" "said:.*(goes on without it)" "$out"
    has "$what: stats says so" "killed_mounts_passed_over:1" "$out"
    chown -R --reference="$store" "$store"
    out=$($first "$WORK/visit.sh" "$store" "a4 a5 a6 a7 a8 a9" - kill) || fail "$what, 3: $out"
    has "$what: nothing was added there, all is here" "^there: a0 a1 a2 a3 $" "$out"
    # Something was.
    out=$($second "$WORK/visit.sh" "$store" "b1" sync kill) || fail "$what, 4: $out"
    has "$what: the other place goes on without it" "^there: a0 a1 a2 a3 $" "$out"
    chown -R --reference="$store" "$store"
    out=$($first "$WORK/visit.sh" "$store" "a10" - unmount) || fail "$what, 5: $out"
    has "$what: one history" "^there: a0 a1 a2 a3 b1 $" "$out"
    has "$what: what is lost is told" "said:.*left the staging .* has gone on since" "$out"
    has "$what: stats counts it" "killed_mounts_passed_over:" "$out"
    has "$what: and the files" "staging_left_files:[1-9]" "$out"
    out=$($first -c '"$T" check "$0"' "$store")
    has "$what: check tells" "killed mounts were passed over" "$out"
    has "$what: check is clean" ": clean:" "$out"
    # And in the other place once more.
    out=$($second "$WORK/visit.sh" "$store" "b2" - unmount) || fail "$what, 6: $out"
    has "$what: one history there" "^there: a0 a1 a2 a3 a10 b1 $" "$out"
    chown -R --reference="$store" "$store"
}
travel "$WORK/home/container" here there "a container"
mkdir "$WORK/home/user" && chown nobody:nogroup "$WORK/home/user" "$WORK/home"
travel "$WORK/home/user" user here "root after a user"
# mended STORE FIRST SECOND WHAT : killed in the first place and damaged then, mended where what it left in staging is not seen, or where it is.
mended() {
    local store=$1 first=$2 second=$3 what=$4 out
    STORES+=("$store")
    out=$($first "$WORK/visit.sh" "$store" "a0" sync unmount) || fail "$what, format: $out"
    out=$($first "$WORK/visit.sh" "$store" "a1 a2 a3" - kill) || fail "$what, 1: $out"
    mend "$second" "$store" "$what, nobody mounted there"
    chown -R --reference="$store" "$store"
    out=$($first "$WORK/visit.sh" "$store" "a4 a5" - kill) || fail "$what, 2: $out"
    has "$what: nothing was added where it was mended, all is here" "^there: a0 a1 a2 a3 $" "$out"
    mend "$second" "$store" "$what, mounted there"
    out=$($second "$WORK/visit.sh" "$store" "b1" sync unmount) || fail "$what, 3: $out"
    has "$what: the other place goes on without it" "^there: a0 a1 a2 a3 $" "$out"
    chown -R --reference="$store" "$store"
    out=$($first "$WORK/visit.sh" "$store" "a6 a7" - kill) || fail "$what, 4: $out"
    has "$what: one history" "^there: a0 a1 a2 a3 b1 $" "$out"
    has "$what: what is lost is told" "said:.*left the staging .* has gone on since" "$out"
    mend "$first" "$store" "$what, mended where it is seen"
    out=$($first "$WORK/visit.sh" "$store" "" - unmount) || fail "$what, 5: $out"
    has "$what: what is seen is taken in" "^there: a0 a1 a2 a3 a6 a7 b1 $" "$out"
    out=$($first -c '"$T" check "$0"' "$store")
    has "$what: check is clean" ": clean:" "$out"
}
# mend WHERE STORE WHAT : the index is lost, and made anew there.
mend() {
    local out
    rm "$2/index"
    out=$($1 -c '"$T" check --repair "$0" 2>&1; echo "exit $?"' "$2")
    has "$3: is mended" "exit [01]$" "$out"
    [ -f "$2/index" ] || fail "$3: there is no index: $out"
}
mended "$WORK/home/mended" here there "mended in a container"
chown nobody:nogroup "$WORK/home"
mended "$WORK/home/mended-user" user here "mended by root"
# What the same user left in the same place is taken in, whatever is mounted read-only in between.
out=$(here "$WORK/visit.sh" "$WORK/home/container" "c1 c2" - kill)
out=$(there "$WORK/visit.sh" "$WORK/home/container" "" - unmount ro)
has "read-only: says what is not shown" "said:.*shown when the store is mounted for writing" "$out"
out=$(here "$WORK/visit.sh" "$WORK/home/container" "" - unmount)
has "after a read-only mount" "b1 b2 c1 c2 $" "$out"
finish
