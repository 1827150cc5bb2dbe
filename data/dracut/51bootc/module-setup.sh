#!/bin/bash
# shellcheck disable=SC2086 # lists of paths, one a word
#
# dracut module: mount the image that composefs= names (unit bootc-root-setup.service).
#
# It brings a Python interpreter and exactly the modules the step imports, as sourceless
# bytecode; closure.py finds them by importing, so any Python from 3.11 on will do.

check() {
    # Only where the image asks for it (add_dracutmodules).
    return 255
}

depends() {
    # initrd-root-fs.target and sysroot.mount are systemd's.
    echo systemd-initrd
    # A failure isolates emergency.target, which starts nothing where its service is not there.
    # dracut-systemd brings one, if it is not left out; newer dracuts have it by itself too.
    if compgen -G "$dracutbasedir/modules.d/[0-9][0-9]systemd-emergency" >/dev/null; then
        echo systemd-emergency
    fi
}

installkernel() {
    # Whatever the build host has mounted: this initramfs boots elsewhere.
    hostonly='' instmods erofs overlay '=drivers/char/tpm'
}

install() {
    local config=/usr/lib/composefs/setup-root-conf.toml
    local -a extra=()

    if [[ -e $config ]]; then
        inst_simple "$config"
        extra=(tomllib)
    fi

    # Bytecode goes straight into the image; what is left are extension modules. dracut looks
    # up libraries of executable files only, and in Debian an extension module is not one.
    local modules libraries
    modules=$(/usr/bin/python3 -SI "$moddir/closure.py" "$initdir" "${extra[@]}") \
        && libraries=$(ldd $modules | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p') || {
        dfatal "bootc: cannot find out what the initramfs step imports"
        return 1
    }
    inst_multiple /usr/bin/python3 $modules $libraries
    inst_simple /usr/lib/bootc/initramfs-setup
    # What the emergency service runs; it says that root is locked and waits.
    inst_multiple -o sulogin

    inst_simple "$systemdsystemunitdir/bootc-root-setup.service"
    # Required, not only wanted: without it the physical root must not be switched to.
    mkdir -p "$initdir$systemdsystemunitdir/initrd-root-fs.target.requires"
    ln_r "$systemdsystemunitdir/bootc-root-setup.service" \
        "$systemdsystemunitdir/initrd-root-fs.target.requires/bootc-root-setup.service"
}
