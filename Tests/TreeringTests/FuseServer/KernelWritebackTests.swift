// Having the kernel write back: what is told of failures, and that stopping finishes what was begun.

import Synchronization
import Testing

@testable import Treering

@Suite struct KernelWritebackTests {
    /// A kernel that does what a test says.
    private final class Kernel: Transport {
        let body: @Sendable (InodeNumber, Range<UInt64>) -> Void
        init(_ body: @escaping @Sendable (InodeNumber, Range<UInt64>) -> Void) { self.body = body }
        func writeBack(_ inode: InodeNumber, _ range: Range<UInt64>) { body(inode, range) }
        var hasIdleReader: Bool { false }
        var isOver: Bool { false }
        func request(inHandOf reader: Int32) -> Request { preconditionFailure("nobody reads requests") }
        var liveRequestCount: Int { 0 }
        func invalidateAttributes(_ inode: InodeNumber) {}
        func start() throws(Errno) {}
        func stop() {}
    }

    private final class Answers: Sendable {
        let all = Mutex<[UInt64: Bool]>([:])
        func note(_ inode: UInt64) -> @Sendable (Bool) -> Void {
            { isWhole in self.all.withLock { $0[inode] = isWhole } }
        }
    }

    /// A WRITE that fails is the business of whoever waits for that file, and of nobody else.
    @Test func failuresAreToldToThoseWhoWait() {
        let writeback = KernelWriteback()
        let kernel = Kernel { inode, _ in
            // While 7 is written back a WRITE of it fails, while 8 is, one of 9.
            if inode.rawValue == 7 { writeback.noteFailedWrite(InodeNumber(7)) }
            if inode.rawValue == 8 { writeback.noteFailedWrite(InodeNumber(9)) }
        }
        let answers = Answers()
        writeback.noteFailedWrite(InodeNumber(10))
        for inode in 7...10 as ClosedRange<UInt64> {
            #expect(writeback.begin(InodeNumber(inode), 0..<4096, through: kernel, answers.note(inode)))
        }
        writeback.stop()
        #expect(answers.all.withLock { $0 } == [7: false, 8: true, 9: true, 10: true])
    }

    @Test func stoppingFinishesWhatWasBegun() {
        let writeback = KernelWriteback()
        let kernel = Kernel { _, _ in rest(nanoseconds: 1_000_000) }
        let answers = Answers()
        for inode in 1...20 as ClosedRange<UInt64> {
            #expect(writeback.begin(InodeNumber(inode), 0..<1, through: kernel, answers.note(inode)))
        }
        writeback.stop()
        #expect(answers.all.withLock { $0.count } == 20)
        #expect(!writeback.begin(InodeNumber(1), 0..<1, through: kernel) { _ in })
        writeback.stop()
    }
}
