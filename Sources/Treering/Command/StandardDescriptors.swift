// Descriptors 0, 1 and 2 as every program takes them to be: open.

import Glibc

enum StandardDescriptors {
    /// Opens those that whoever started this process has closed. To be called before anything else is opened: the next file would get
    /// their number, and messages would be written into it, or it would be lost when a daemon leaves its terminal.
    static func open() {
        for descriptor in Int32(0)...2 where fcntl(descriptor, F_GETFD) < 0 {
            // The lowest free number is this one. Without /dev/null, something that cannot be written to.
            let opened = HostString("/dev/null").openForPrograms(O_RDWR)
            if opened < 0 && HostString("/").openForPrograms(O_RDONLY | O_DIRECTORY) < 0 { _exit(71) }
        }
    }
}
