// The option table: every option goes somewhere, wrong ones name themselves, the command line wins over the
// environment.

import Glibc
import Testing

@testable import Treering

@Suite(.serialized) struct MountOptionsTests {
    private func options(_ list: String) throws -> MountOptions {
        try MountOptions(words: Arguments.split(HostString(list)))
    }

    private func message(_ list: String) -> String {
        do throws(CommandError) {
            _ = try MountOptions(words: Arguments.split(HostString(list)))
            return ""
        } catch {
            return error.message
        }
    }

    /// A value in bounds for each kind, as it would be typed.
    private func example(_ option: CommandOption) -> String {
        switch option.kind {
        case .flag, .generic: return option.name
        case .choice(let words): return option.name + "=" + words[0]
        case .number(let range): return "\(option.name)=\(range.lowerBound)"
        case .size(let range): return option.name + "=" + ByteSize.text(range.lowerBound)
        case .text: return option.name + (option.name == "subtype" ? "=treering" : "=x")
        }
    }

    @Test func everyOptionGoesSomewhere() {
        for option in MountOptions.table {
            #expect(MountOptions.understands(HostString(example(option))), "\(option.name)")
        }
    }

    @Test func namesAreUnique() {
        #expect(Set(MountOptions.table.map(\.name)).count == MountOptions.table.count)
    }

    @Test func valuesArrive() throws {
        let options = try options(
            "engine=posix,queue_depth=8,staging=1M,commit=7,ack=durable,open=handle,readers=2,ro,dev")
        #expect(options.engine == .posix && options.device.queueDepth == 8)
        #expect(options.volume.stagingByteCount == 1 << 20 && options.volume.commitIntervalNanoseconds == 7_000_000_000)
        #expect(options.volume.acknowledgement == .durable && options.volume.isReadOnly && options.device.readOnly)
        #expect(options.fuse.open == .handle && options.fuse.readerCount == 2)
        #expect(options.fuse.mountFlags == ["ro", "dev", "default_permissions"])
    }

    @Test func laterWordsWin() throws {
        #expect(try options("ro,rw").volume.isReadOnly == false)
        #expect(try options("user,exec").flags.allowsExecution)
        #expect(try options("exec,user").flags.allowsExecution == false)
        #expect(try options("default_permissions,no_default_permissions").fuse.mountFlags == [])
    }

    @Test func syncMeansDurable() throws {
        for word in ["sync", "dirsync"] { #expect(try options(word).volume.acknowledgement == .durable) }
        #expect(try options("sync,async").volume.acknowledgement == .staged)
        #expect(try options("ack=written,dirsync").volume.acknowledgement == .written)
    }

    /// A remount may repeat what the mount was made with, and what is so anyway; it cannot change it.
    @Test func whatARemountCannotChange() throws {
        let running = try options("ack=durable,staging=32M,writeback_cache=on,capacity=1G,noatime,allow_other").volume
            .chosenText
        for same in [
            "", "ack=durable", "staging=32768K", "allow_other,default_permissions", "open=none,commit=5,ro,noexec,suid",
            "engine=auto", "sqpoll=off",
        ] {
            #expect(try options(same).firstDifference(from: running) == nil, "\(same)")
        }
        for other in [
            "ack=staged", "commit=9", "writeback_cache=off", "noacl", "allow_root", "open=handle", "clean=off",
        ] {
            #expect(try options(other).firstDifference(from: running) != nil, "\(other)")
        }
        #expect(try options("sync").firstDifference(from: "") == "-o ack=durable")
    }

    @Test func wrongOnesNameThemselves() {
        #expect(message("nonsense=3").contains("nonsense=3"))
        #expect(message("engine=quantum").contains("engine=quantum: is one of auto, ring, posix"))
        #expect(message("queue_depth=0").contains("queue_depth=0"))
        #expect(message("staging=lots").contains("staging=lots"))
        #expect(message("commit").contains("commit"))
        #expect(message("transport=uring").contains("not in this version"))
        #expect(message("sqpoll,engine=posix").contains("sqpoll"))
        #expect(message("x-systemd.automount,comment=a b,_netdev,nofail,relatime,lazytime") == "")
    }

    @Test func commandLineWinsOverEnvironment() throws {
        setenv("TREERING_COMMIT", "11", 1)
        defer { unsetenv("TREERING_COMMIT") }
        #expect(try options("").volume.commitIntervalNanoseconds == 11_000_000_000)
        #expect(try options("commit=12").volume.commitIntervalNanoseconds == 12_000_000_000)
        setenv("TREERING_COMMIT", "soon", 1)
        #expect(message("").contains("TREERING_COMMIT: commit=soon"))
    }

    @Test func escapedCommas() {
        #expect(Arguments.split("a,fsname=b\\,c,d\\\\e,,f") == ["a", "fsname=b,c", "d\\e", "f"])
    }

    @Test func sizes() {
        #expect(
            ByteSize.parse("64M") == 64 << 20 && ByteSize.parse("1g") == 1 << 30 && ByteSize.parse("16MiB") == 16 << 20)
        #expect(ByteSize.parse("4096") == 4096 && ByteSize.parse("2TB") == 2 << 40)
        #expect(ByteSize.parse("") == nil && ByteSize.parse("M") == nil && ByteSize.parse("-1") == nil)
        #expect(ByteSize.parse("99999999999T") == nil && ByteSize.parse("1.5G") == nil)
        #expect(ByteSize.text(64 << 20) == "64M" && ByteSize.text(4097) == "4097" && ByteSize.text(0) == "0")
    }

    @Test func operandsAndLongOptions() throws {
        let arguments = try Arguments(["--capacity", "1G", "store", "--force", "--", "-x"], FormatCommand.options)
        #expect(
            arguments.operands == ["store", "-x"] && arguments.size("capacity") == 1 << 30 && arguments.has("force"))
        #expect(throws: CommandError.self) { try Arguments(["--capacity=huge"], FormatCommand.options) }
        #expect(throws: CommandError.self) { try Arguments(["--absent"], FormatCommand.options) }
    }
}
