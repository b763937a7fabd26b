// What the flags of a descriptor say of the requests that come through it.

import Glibc
import Testing

@testable import Treering

@Suite struct OpenFlagsTests {
    // With the writeback cache the kernel completes pages by reads through the writer's descriptor, which moved the atime.
    @Test func aReadThroughAWritersDescriptorIsNoAccess() {
        #expect(OpenFlags.isAccess(O_RDONLY))
        #expect(OpenFlags.isAccess(O_RDWR | O_APPEND))
        #expect(!OpenFlags.isAccess(O_WRONLY))
        #expect(!OpenFlags.isAccess(O_WRONLY | O_APPEND))
        #expect(!OpenFlags.isAccess(O_RDONLY | OpenFlags.noAccessTime))
    }
}
