// Paths and arguments as bytes: no byte changes on its way, and only equal bytes are equal.

import Glibc
import Testing

@testable import Treering

@Suite struct HostStringTests {
    private let odd = HostString(bytes: Array("alt".utf8) + [0xE4])

    @Test func bytesThatAreNoTextStayAndAreShownEscaped() {
        let path: HostString = "\(odd)/lock"
        #expect(path.bytes == Array("alt".utf8) + [0xE4] + Array("/lock".utf8))
        #expect("\(path)" == "alt\\xe4/lock")
        #expect(HostString("änderung/ß🙂").description == "änderung/ß🙂")
        #expect(HostString(bytes: [0x1B, 0x5B, 0x0A, 0xE2, 0x82]).description == "\\x1b[\\x0a\\xe2\\x82")
        #expect(path.withCString { strlen($0) } == 9)
    }

    /// Swift's Strings are equal when they look the same; two files are not.
    @Test func namesThatLookTheSameAreTwo() {
        let (composed, decomposed) = ("\u{E9}", "e\u{301}")
        #expect(composed == decomposed)
        #expect(HostString(composed) != HostString(decomposed))
        #expect(odd != HostString(bytes: Array("alt".utf8) + [0xF6]))
    }

    @Test func argumentsAndOptionsKeepTheirBytes() throws {
        let list: HostString = "commit=7,fsname=a\\,\(odd)"
        let arguments = try Arguments([odd, "-o", list, "--", "-x"], [], takesMountOptions: true)
        #expect(arguments.operands == [odd, "-x"])
        #expect(arguments.mountWords == ["commit=7", "fsname=a,\(odd)"])
        #expect(try MountOptions(words: arguments.mountWords).fuse.fsname == "a,\(odd)")
        #expect(StoreDirectory.path(ofSource: "store:/\(odd)") == "/\(odd)")
        do throws(CommandError) {
            _ = try MountOptions(words: ["engine=\(odd)"])
            Issue.record("taken")
        } catch { #expect(error.message.contains("engine=alt\\xe4")) }
    }

    @Test func theTableOfMountsKeepsBytes() {
        let line: HostString = "36 35 0:45 / /mnt/\(odd)\\040b rw - fuse.treering \(odd) rw"
        let mounted = MountTable.parse(line)
        #expect(mounted?.mountPoint == "/mnt/\(odd) b" && mounted?.source == odd)
    }

    @Test func filesAreFoundByTheirBytes() throws {
        let directory = TemporaryDirectory()
        defer { withExtendedLifetime(directory) {} }
        let path = directory.path.appending(odd)
        #expect(try StoreDirectory.state(path) == .missing)
        try path.makeDirectory()
        #expect(try directory.path.names() == [odd])
        #expect(try path.realPath() == directory.path.realPath().appending(odd))
        #expect(try HostFile.realPathOfNew("\(path)/new\(odd)/") == path.realPath().appending("new\(odd)"))
        #expect(try StoreDirectory.state(path) == .empty)
        #expect(try StoreDirectory.state("\(directory.path)/alt\u{FFFD}") == .missing)
        close(HostString("\(path)/\(odd)").open(O_WRONLY | O_CREAT, 0o600))
        #expect(try StoreDirectory.state(path) == .foreign([odd]))
    }

    @Test func slashes() {
        #expect(HostString("/").withoutSlashes == "/" && HostString("//").withoutSlashes == "/")
        #expect(HostString("a//").withoutSlashes == "a" && HostString("").withoutSlashes == "")
        #expect(HostString("/").appending("a") == "/a" && HostString("b").appending("a") == "b/a")
    }
}
