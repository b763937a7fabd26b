// Answers the kernel's requests from a volume. Callbacks (FuseServer+Callbacks) build an operation and a reply.
// `perform` runs the operation and consumes the reply, at once or when what the operation waits for has come.

import CFuse3
import Glibc
import Synchronization

/// One request of the kernel as a value: what to do with the volume, and how to answer.
///
/// It may run several times. What it points to lives in the request's memory, which the reply keeps until the answer.
/// An operation that waits for other requests of the kernel must not point to anything there.
protocol Operation: SendableMetatype {
    associatedtype Answer
    /// Whether it changes the store. The reply of such an operation waits for the disk if `ack=` asks for it.
    static var isMutation: Bool { get }
    /// `context` names the caller if the operation is a mutation. `reply` helps to encode the answer.
    func run(_ volume: HostVolume, _ context: RequestContext, _ reply: borrowing Reply) throws(Stop) -> Answer
    func finish(_ answer: Answer, _ reply: consuming Reply, _ server: FuseServer)
    /// Whether a second run would fail or do something else. The kernel sends a request again that a process which is
    /// gone did not answer. If that process has done it, `repeatedAnswer` answers.
    static var isOnce: Bool { get }
    /// The answer to a request whose changes are in the store already.
    func repeatedAnswer(_ volume: HostVolume) throws(Stop) -> Answer
}

/// An operation of the core alone.
protocol CoreOperation: Operation {
    /// Runs under the volume's lock. `context` names the caller where the operation is a mutation.
    func run(_ core: Core, _ context: RequestContext) throws(Stop) -> Answer
}

extension CoreOperation {
    @inline(__always)
    func run(_ volume: HostVolume, _ context: RequestContext, _ reply: borrowing Reply) throws(Stop) -> Answer {
        try volume.run { (core) throws(Stop) in try run(core, context) }
    }
}

extension Operation {
    static var isMutation: Bool { false }
    static var isOnce: Bool { false }
    func repeatedAnswer(_ volume: HostVolume) throws(Stop) -> Answer { throw .failed(.ioError) }
}

extension Operation where Answer == Void {
    func repeatedAnswer(_ volume: HostVolume) throws(Stop) {}
}

extension Operation where Answer == Void {
    func finish(_ answer: Void, _ reply: consuming Reply, _ server: FuseServer) { reply.success() }
}

/// The server of one mount.
final class FuseServer: @unchecked Sendable {
    /// Another one only while there is no transport.
    private(set) var volume: HostVolume
    let options: FuseOptions
    let log: LogSink
    /// Tells the inodes of this store from those of another one: a part of file handles (name_to_handle_at(2)). Within
    /// a store inode numbers are never used again.
    let generation: UInt32
    /// What a successor of this process takes over; nil where there would be none.
    let connection: ConnectionState?
    /// Set once before the session starts, because the transport needs the session and the session this object.
    private(set) var transport: any Transport
    /// Set by INIT: the kernel has asked and been told what this server can do.
    let isInitialized = Atomic<Bool>(false)
    private var writeback = KernelWriteback()
    /// The number of a request that asks a read-only mount to become writable, and is not answered yet.
    let asksToBecomeWritable = Mutex<UInt64?>(nil)
    /// Told when `isInitialized` becomes true, and when there is something in `asksToBecomeWritable`.
    let onNews: @Sendable () -> Void

    init(
        _ volume: HostVolume, _ options: FuseOptions, log: LogSink, onNews: @escaping @Sendable () -> Void
    ) {
        self.volume = volume
        self.options = options
        self.log = log
        self.onNews = onNews
        generation = volume.generation
        connection = volume.options.connection
        transport = NoTransport.shared
    }

    func use(_ transport: any Transport) { self.transport = transport }

    /// Requests that are not answered yet; 0 while there is no transport.
    var liveRequestCount: Int { transport.liveRequestCount }

    /// To be called before the transport stops serving a kernel that goes on.
    func stop() { writeback.stop() }

    /// Serves another volume of the same store from now on. The transport has stopped, and `use` follows.
    func use(_ volume: HostVolume) {
        precondition(transport.isOver && liveRequestCount == 0, "a request would go on with the volume that it knows")
        self.volume = volume
        writeback = KernelWriteback()
        transport = NoTransport.shared
        asksToBecomeWritable.withLock { $0 = nil }
    }

    func invalidateAttributes(_ inode: InodeNumber) { transport.invalidateAttributes(inode) }

    func markInitialized() {
        isInitialized.store(true, ordering: .releasing)
        onNews()
    }

    /// Runs an operation and sees to it that its reply is sent, now or later.
    @inline(__always)
    func perform<O: Operation>(_ operation: O, _ reply: consuming Reply) {
        let answer: O.Answer
        do throws(Stop) {
            answer = try run(operation, reply)
        } catch {
            switch error {
            case .failed(let errno):
                noteFailure(of: operation)
                reply.error(errno)
            case .blocked(let blocker):
                let isWithReader = reply.isWithReader
                park(ParkedOperation(operation, ParkedReply(reply)), blocker, nil, isWithReader)
            }
            return
        }
        guard O.isMutation && !volume.acknowledgesStaged else { return operation.finish(answer, reply, self) }
        let isWithReader = reply.isWithReader
        acknowledge(operation, answer, ParkedReply(reply), isWithReader)
    }

    /// Runs an operation, or returns what it did when it ran in a process that is gone. If it needs the caller's
    /// identity, finds that out and runs it again.
    @inline(__always)
    private func run<O: Operation>(_ operation: O, _ reply: borrowing Reply) throws(Stop) -> O.Answer {
        if O.isOnce, reply.isResent, let connection, connection.isDone(reply.number) {
            return try operation.repeatedAnswer(volume)
        }
        precondition(O.isMutation || !O.isOnce, "what must not be done twice is a mutation")
        var context: RequestContext = O.isMutation ? reply.context(isOnce: O.isOnce) : .nobody
        while true {
            do throws(Stop) { return try operation.run(volume, context, reply) } catch {
                guard case .blocked(.identity) = error, context.caller.identity == nil else { throw error }
            }
            context.caller.identity = reply.requester.identity
        }
    }

    /// Whether the thread that runs this may wait for I/O. Only a reader may, and only if another one is there for the
    /// next request.
    private func mayWait(_ isWithReader: Bool) -> Bool { isWithReader && transport.hasIdleReader }

    func mayWait(_ reply: borrowing Reply) -> Bool { mayWait(reply.isWithReader) }

    private func noteFailure<O: Operation>(of operation: O) {
        if let write = operation as? WriteOperation { writeback.noteFailedWrite(write.inode) }
    }

    private func park<O: Operation>(
        _ parked: ParkedOperation<O>, _ blocker: Blocker, _ attempt: Attempt?, _ isWithReader: Bool
    ) {
        volume.park(blocker, attempt, mayWait: mayWait(isWithReader)) { [self] attempt, isWithin in
            retry(parked, attempt, isWithReader && isWithin)
        }
    }

    private func retry<O: Operation>(_ parked: ParkedOperation<O>, _ attempt: Attempt, _ isWithReader: Bool) {
        let operation = parked.operation
        let answer: O.Answer
        do throws(Stop) {
            answer = try parked.reply.withReply { reply throws(Stop) in try run(operation, reply) }
        } catch {
            switch error {
            case .failed(let errno):
                noteFailure(of: operation)
                parked.reply.answer(isWithReader: isWithReader) { $0.error(errno) }
            case .blocked(let blocker): park(parked, blocker, attempt, isWithReader)
            }
            return
        }
        if O.isMutation && !volume.acknowledgesStaged {
            return acknowledge(operation, answer, parked.reply, isWithReader)
        }
        parked.reply.answer(isWithReader: isWithReader) { operation.finish(answer, $0, self) }
    }

    /// Answers when what the operation did has reached the disk as far as `ack=` asks for.
    private func acknowledge<O: Operation>(
        _ operation: O, _ answer: O.Answer, _ reply: ParkedReply, _ isWithReader: Bool
    ) {
        let done = Done(operation, answer, reply)
        volume.whenAcknowledged(mayWait: mayWait(isWithReader)) { [self] errno, isWithin in
            done.reply.answer(isWithReader: isWithReader && isWithin) { reply in
                if let errno { return reply.error(errno) }
                done.operation.finish(done.answer, reply, self)
            }
        }
    }

    /// Performs an operation after the kernel has written back what it holds of a range. Answers EIO if a part of that
    /// did not get into the store, and ENOSYS if there is no thread to wait for it.
    func perform<O: Operation>(
        _ operation: O, after inode: InodeNumber, _ range: Range<UInt64>, _ reply: consuming Reply
    ) {
        // The kernel's WRITEs need the memory and the place of this request.
        reply.stepAside()
        let waiting = ParkedOperation(operation, ParkedReply(reply))
        let hasBegun = writeback.begin(inode, range, through: transport) { [self] isWhole in
            waiting.reply.answer { reply in
                guard isWhole else { return reply.error(.ioError) }
                reply.comeBack()
                perform(waiting.operation, reply)
            }
        }
        // After ENOSYS the kernel never asks again.
        if !hasBegun { waiting.reply.answer { $0.error(.notImplemented) } }
    }

    /// Makes the writer of so many bytes wait if free segments are few. Others go on: a thread waits only if it leaves
    /// another one for them.
    func holdBack(_ byteCount: Int, _ reply: borrowing Reply) {
        let delay = volume.writePace.delay(ofByteCount: byteCount)
        if delay > 0 && mayWait(reply) { rest(nanoseconds: delay) }
    }

    /// Answers with what a plan reads.
    func answer(
        _ plan: ReadPlan, _ reply: consuming Reply, _ body: @escaping @Sendable (ReadPlan, consuming Reply) -> Void
    ) {
        guard plan.needsIO else {
            body(plan, reply)
            return volume.recycle(plan)
        }
        let isWithReader = reply.isWithReader
        let parked = ParkedReply(reply)
        volume.execute(plan, mayWait: mayWait(isWithReader)) { [volume] plan, errno, isWithin in
            parked.answer(isWithReader: isWithReader && isWithin) { reply in
                if let errno { return reply.error(errno) }
                body(plan, reply)
            }
            volume.recycle(plan)
        }
    }

    /// Answers with an inode that the volume has counted one more lookup for.
    func answer(entry attributes: Attributes, _ reply: consuming Reply) {
        if !reply.entry(attributes) { volume.forget(attributes.inode, 1) }
    }
}

/// An operation that waits. Owned by the closure that will run it again.
private final class ParkedOperation<O: Operation>: @unchecked Sendable {
    let operation: O
    let reply: ParkedReply
    init(_ operation: O, _ reply: ParkedReply) {
        self.operation = operation
        self.reply = reply
    }
}

/// An operation that is done and waits to be acknowledged.
private final class Done<O: Operation>: @unchecked Sendable {
    let operation: O
    let answer: O.Answer
    let reply: ParkedReply
    init(_ operation: O, _ answer: O.Answer, _ reply: ParkedReply) {
        self.operation = operation
        self.answer = answer
        self.reply = reply
    }
}

/// What stands in until there is a transport; no request can come meanwhile.
private final class NoTransport: Transport {
    static let shared = NoTransport()
    var hasIdleReader: Bool { false }
    var isOver: Bool { true }
    var liveRequestCount: Int { 0 }
    func request(inHandOf reader: Int32) -> Request { preconditionFailure("a request without a transport") }
    func invalidateAttributes(_ inode: InodeNumber) {}
    func writeBack(_ inode: InodeNumber, _ range: Range<UInt64>) {}
    func start() throws(Errno) { throw .notImplemented }
    func stop() {}
}
