# Sourced by the groups that compare with ext4: `oracle` sets ORACLE to an empty directory on ext4, in $WORK if that is ext4,
# else in an image that is mounted there. Ends the group with a message where neither can be had.
# shellcheck shell=bash

oracle() {
    if [ "$(id -u)" != 0 ]; then
        say "$GROUP: skipped: it needs root, since it acts as several users"
        finish
    fi
    ORACLE=$WORK/oracle
    mkdir "$ORACLE"
    chmod 755 "$WORK" "$ORACLE"
    [ "$(awk -v dir="$WORK" 'index(dir, $2) == 1 && length($2) > n {n = length($2); type = $3} END {print type}' /proc/mounts)" = ext4 ] && return 0
    need mkfs.ext4
    truncate -s 2G "$WORK/ext4.img"
    if mkfs.ext4 -q -F "$WORK/ext4.img" && mount -o loop,relatime "$WORK/ext4.img" "$ORACLE" 2>"$WORK/.mount"; then
        trap 'umount -l "$ORACLE"; interrupted' INT TERM HUP
        trap 'umount -l "$ORACLE"; fail "ended early"; finish' EXIT
        return 0
    fi
    say "$GROUP: skipped: $WORK is not on ext4, and an image cannot be mounted: $(cat "$WORK/.mount")"
    finish
}

# Takes the image away, where there is one. To be called before `finish`.
end_oracle() { if mountpoint -q "$ORACLE"; then umount "$ORACLE" || umount -l "$ORACLE"; fi; }
