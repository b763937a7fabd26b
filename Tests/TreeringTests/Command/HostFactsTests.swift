// Reading the table of mounts, looking at directories, and JSON as lines.

import Glibc
import Testing

@testable import Treering

@Suite struct HostFactsTests {
    @Test func mountinfoLine() {
        let line: HostString =
            "36 35 0:45 / /mnt/with\\040space rw,nosuid shared:1 master:2 - fuse.treering store:/a\\134b rw,user_id=0"
        let expected = MountedFileSystem(
            device: "0:45", mountPoint: "/mnt/with space", type: "fuse.treering", source: "store:/a\\b",
            words: ["rw", "nosuid", "rw", "user_id=0"])
        #expect(MountTable.parse(line) == expected)
        #expect(MountTable.parse("") == nil && MountTable.parse("1 2 3") == nil)
        #expect(MountTable.mount(at: "/") != nil)
    }

    @Test func nesting() {
        #expect(HostFile.isPath("/a/b", within: "/a") && HostFile.isPath("/a", within: "/a"))
        #expect(!HostFile.isPath("/ab", within: "/a") && HostFile.isPath("/a", within: "/"))
    }

    @Test func storeStates() throws {
        let temporary = TemporaryDirectory()
        defer { withExtendedLifetime(temporary) {} }
        let directory: HostString = "\(temporary.path)/store"
        func make(_ name: String) { close(HostString("\(directory)/\(name)").open(O_WRONLY | O_CREAT, 0o600)) }
        #expect(try StoreDirectory.state(directory) == .missing)
        try directory.makeDirectory()
        #expect(try StoreDirectory.state(directory) == .empty)
        make("lock")
        try HostString("\(directory)/segments").makeDirectory()
        try HostString("\(directory)/lost+found").makeDirectory()
        #expect(try StoreDirectory.state(directory) == .empty)
        make("segments/00000000.seg")
        #expect(try StoreDirectory.state(directory) == .incomplete)
        make("letter.txt")
        #expect(try StoreDirectory.state(directory) == .foreign(["letter.txt"]))
        make("superblock")
        #expect(try StoreDirectory.state(directory) == .store)
        StoreDirectory.clear(directory, andDirectory: true)
        #expect(try directory.names() == ["letter.txt", "lost+found"])
    }

    @Test func lockIsExclusiveAndNamesItsOwner() throws {
        let temporary = TemporaryDirectory()
        defer { withExtendedLifetime(temporary) {} }
        let directory = temporary.path
        let lock = try StoreLock(directory)
        #expect(HostString("\(directory)/lock").text() == "\(getpid())\n")
        withExtendedLifetime(lock) {
            do throws(CommandError) {
                _ = try StoreLock(directory)
                Issue.record("locked twice")
            } catch {
                #expect(error.message.contains("in use by process \(getpid())"))
            }
        }
    }

    @Test func jsonLines() {
        let lines = JSONLines.lines(#"{"a":{"b":1,"c":[true,{"d":"x \"y\""}]},"e":-2.5}"#)
        let words = lines.map { $0.split(separator: " ", maxSplits: 1).map { String($0).trimmed } }
        #expect(words == [["a.b", "1"], ["a.c[0]", "true"], ["a.c[1].d", "x \"y\""], ["e", "-2.5"]])
        #expect(JSONLines.lines("{") == [] && JSONLines.lines("") == [] && JSONLines.lines("[1,") == ["[0]  1"])
    }
}

extension String {
    fileprivate var trimmed: String { String(drop { $0 == " " }) }
}
