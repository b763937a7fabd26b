// Makes sure that descriptors 0, 1 and 2 are open, as every program assumes.

import Glibc

enum StandardDescriptors {
    /// Opens those that the starting process has closed. Call it before anything else is opened: otherwise a file would
    /// get such a number, and messages would be written into it, or leaving the terminal would close it.
    static func open() {
        for descriptor in Int32(0)...2 where fcntl(descriptor, F_GETFD) < 0 {
            // open(2) gives the lowest free number, which is this one. Without /dev/null, use something that cannot be
            // written to.
            let opened = HostString("/dev/null").openForPrograms(O_RDWR)
            if opened < 0 && HostString("/").openForPrograms(O_RDONLY | O_DIRECTORY) < 0 { _exit(71) }
        }
    }
}
