// Serves one mount from its first request to its end: transport, signals, unmounting. Runs on the main thread.

import CLinux
import Glibc
import Synchronization

/// Serves a volume at a mount point until somebody unmounts it or asks this process to end.
final class MountService {
    private var volume: HostVolume
    private let options: FuseOptions
    private let mountPoint: HostString
    private let log: LogSink
    /// Opens and mounts the store once more, after the volume was brought to rest.
    private let reopen: Reopen
    typealias Reopen = (_ isReadOnly: Bool) throws(CommandError) -> HostVolume
    private var isReady = false
    /// The volume was closed, and no other has taken its place.
    private var isClosed = false
    /// The connection that this process takes over, or hands to its supervisor once it exists.
    private let handover: (connection: HeldConnection, sender: HandoverSender)?
    private var isUnmounting = false

    /// How long open files may delay the end after a signal, in seconds.
    private static let graceSeconds = 5
    private static let initTimeoutSeconds = 30
    /// The signal that wakes the main thread.
    private static let newsSignal = SIGUSR1
    private static let endSignals = [SIGTERM, SIGINT, SIGHUP]

    init(
        _ volume: HostVolume, _ options: FuseOptions, mountPoint: HostString, log: LogSink,
        handover: (connection: HeldConnection, sender: HandoverSender)? = nil, reopen: @escaping Reopen
    ) {
        self.handover = handover
        self.reopen = reopen
        self.volume = volume
        self.options = options
        self.mountPoint = mountPoint
        self.log = log
    }

    /// Call it before any thread starts: all threads then leave these signals to the main thread.
    static func prepareSignals() {
        signal(SIGPIPE, SIG_IGN)
        var set = signals
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    private static var signals: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in endSignals + [newsSignal] { sigaddset(&set, number) }
        return set
    }

    /// Mounts, serves and unmounts; `onReady` is called when the mount is usable. Returns the exit code.
    func run(onReady: () -> Void) throws(CommandError) -> Int32 {
        let failure: CommandError?
        do throws(CommandError) {
            try serve(onReady)
            failure = nil
        } catch {
            failure = error
        }
        var code: Int32 = 0
        do throws(Errno) { if !isClosed { try volume.unmount() } } catch {
            log.error("\(mountPoint): the store could not be brought to rest: \(error); the next mount recovers it")
            code = 1
        }
        let defects = Request.defectCount.load(ordering: .relaxed)
        if defects > 0 {
            log.error("\(mountPoint): \(defects) requests were dropped and answered EIO, which is a defect in Treering")
        }
        if let failure { throw failure }
        return code
    }

    private func serve(_ onReady: () -> Void) throws(CommandError) {
        let server = FuseServer(volume, options, log: log, onNews: Self.tellNews)
        let session = try handover?.connection.state.isInherited == true ? takeOver(server) : mount(server)
        var transport = try start(server, session)
        var failure: CommandError?
        while true {
            failure = wait(server, transport, onReady)
            guard let request = server.asksToBecomeWritable.withLock({ $0 }), !transport.isOver else { break }
            server.stop()
            transport.stop()
            transport.join()
            do throws(CommandError) {
                let reason = try becomeWritable()
                server.use(volume)
                transport = try start(server, session)
                session.answer(request, reason)
            } catch {
                // Nothing can be served any more. Whoever asked gets an error when the connection ends.
                failure = error
                break
            }
        }
        // Operations that wait for room would hold their memory for ever. Their replies need the session, even if
        // nobody hears them.
        volume.finishRequests()
        server.stop()
        transport.join()
        if isStillMounted { detach() }
        session.forgetMount()
        withExtendedLifetime((server, session)) {}
        if let failure { throw failure }
    }

    private static let tellNews: @Sendable () -> Void = { kill(getpid(), MountService.newsSignal) }

    private func start(_ server: FuseServer, _ session: FuseSession) throws(CommandError) -> ClassicTransport {
        let transport = ClassicTransport(
            session: session.handle, mountPoint: mountPoint, readerCount: options.readerCount,
            requestLimit: options.inflightLimit, payloadByteCount: volume.maxWriteByteCount,
            supervisor: handover != nil ? getppid() : 0, onEnd: Self.tellNews)
        transport.device.withLock { $0 = device }
        server.use(transport)
        do throws(Errno) { try transport.start() } catch {
            throw CommandError("\(mountPoint): no thread can be started: \(error)", exitCode: 32)
        }
        return transport
    }

    /// Opens the store of a read-only mount for writing, while nobody is served: the kernel only sees late answers. If
    /// the store cannot be written, opens it read-only again. Returns why, or "" where all is well.
    private func becomeWritable() throws(CommandError) -> String {
        // What the kernel knows stays as it is. Under a supervisor the counts are in the connection's memory.
        let (next, lookups) = volume.state.withLock { ($0.core.log.nextSequence, $0.core.lookups) }
        handover?.connection.state.isInherited = true
        isClosed = true
        do throws(Errno) { try volume.unmount() } catch {
            log.warning("\(mountPoint): the read-only store could not be closed: \(error)")
        }
        var reason = ""
        do throws(CommandError) {
            volume = try reopen(false)
            if volume.isReadOnly { reason = "the store allows reading only" }
        } catch {
            reason = error.message
            log.error("\(mountPoint): cannot become writable: \(reason)")
            volume = try reopen(true)
        }
        isClosed = false
        let recovered = volume.state.withLock { state in
            if handover == nil { state.core.lookups = lookups }
            return state.recoveredSequence
        }
        guard volume.isReadOnly || recovered == next else {
            // What the kernel keeps of files would no longer be what the store has.
            throw CommandError("\(mountPoint): the store has changed below its read-only mount", exitCode: 32)
        }
        if !volume.isReadOnly {
            log.notice("\(mountPoint): is writable now")
            handover?.sender.sendWritable()
        }
        return reason
    }

    private func mount(_ server: FuseServer) throws(CommandError) -> FuseSession {
        // A dead mount stays until it is replaced: it gives errors, where the empty directory below would accept files.
        let replacement = MountReplacement(mountPoint, source: options.fsname)
        let session: FuseSession
        do throws(Errno) {
            if replacement == nil { DeadMount.clear(mountPoint) }
            session = try FuseSession(server, mountPoint: replacement?.directory ?? mountPoint)
            try session.mount()
            try replacement?.finish()
            if options.mountBits != 0, geteuid() == 0,
                (try? mountPoint.remount(nil, nil, options.mountBits | UInt(MS_BIND))) == nil
            {
                log.warning("\(mountPoint): strictatime, nodiratime or nosymfollow could not be set: \(Errno.last)")
            }
        } catch {
            replacement?.cancel()
            throw CommandError("\(mountPoint): cannot be mounted: \(error)", exitCode: 32)
        }
        handover?.sender.send(descriptor: session.descriptor)
        if replacement != nil { log.notice("\(mountPoint): took the place of the mount of a process that is gone") }
        return session
    }

    /// Takes over the connection of a process that is gone. The kernel notices only that answers are late.
    private func takeOver(_ server: FuseServer) throws(CommandError) -> FuseSession {
        let connection = handover!.connection
        let session: FuseSession
        do throws(Errno) {
            session = try FuseSession(server, mountPoint: "/dev/fd/\(connection.descriptor)")
            try session.mount()
        } catch {
            throw refusal("no session can be made: \(error)")
        }
        guard InitReply.resume(session.handle, connection.exchange!) else {
            throw refusal("this program and these options would agree on something else with the kernel")
        }
        do throws(Errno) { try InitReply.askAgain(session.handle) } catch {
            throw refusal("the kernel does not send again what was not answered: \(error)")
        }
        let count = connection.state.doneRequests.count
        log.notice(
            "\(mountPoint): took the connection over from a process that is gone; of the last requests \(count) are known"
        )
        return session
    }

    private func refusal(_ reason: String) -> CommandError {
        CommandError(
            "\(mountPoint): the connection of the last process cannot be taken over: \(reason)",
            exitCode: HandoverSender.refusalCode)
    }

    /// Waits for the session's end, or until somebody asks the mount to become writable. Handles signals, and calls
    /// `onReady` when the mount is usable.
    private func wait(_ server: FuseServer, _ transport: ClassicTransport, _ onReady: () -> Void) -> CommandError? {
        var waitedSeconds = 0
        while !transport.isOver {
            let signal = nextSignal(seconds: 1)
            if !isReady && server.isInitialized.load(ordering: .acquiring) {
                isReady = true
                rememberMount()
                transport.device.withLock { $0 = device }
                if let handover, let device { handover.sender.send(device: device) }
                if let handover, let exchange = InitReply.exchangeForSuccessor() { handover.sender.send(exchange) }
                onReady()
            }
            if Self.endSignals.contains(signal) {
                log.notice("\(mountPoint): unmounting on signal \(signal)")
                unmount(server, transport)
            }
            if signal == 0 { waitedSeconds += 1 }
            if isReady, server.asksToBecomeWritable.withLock({ $0 != nil }) { return nil }
            if !isReady && waitedSeconds >= Self.initTimeoutSeconds {
                transport.stop()
                return CommandError("\(mountPoint): the kernel does not answer", exitCode: 32)
            }
        }
        return isReady ? nil : CommandError("\(mountPoint): was unmounted before it was usable", exitCode: 32)
    }

    /// The next signal; 0 if none came in this time.
    private func nextSignal(seconds: Int = 0, milliseconds: Int = 0) -> Int32 {
        var set = Self.signals
        var limit = timespec(tv_sec: seconds, tv_nsec: milliseconds * 1_000_000)
        return max(0, sigtimedwait(&set, nil, &limit))
    }

    // MARK: Unmounting

    /// How long unmounting on a signal waits for room on the host, in seconds.
    private static let roomSeconds = 10

    /// Writes back what the kernel holds and detaches the mount. Then goes on serving those who still have files open,
    /// for a limited time.
    private func unmount(_ server: FuseServer, _ transport: ClassicTransport) {
        // sync(1) runs in a process of its own: a thread that waits for this very process could not be killed. The log
        // may wait for room on the host for ever, so this waiting has a limit.
        var waitedMilliseconds = 0
        // Whether a second signal has come.
        var isHurried = false
        let program = HostFile.executable("sync")
        let isSynced = program?.run(
            ["-f", mountPoint],
            unless: {
                isHurried = Self.endSignals.contains(nextSignal(milliseconds: 10))
                waitedMilliseconds = volume.isLogSuspended ? waitedMilliseconds + 10 : 0
                return isHurried || waitedMilliseconds > 1000 * Self.roomSeconds
            })
        if isSynced == nil {
            let descriptor = mountPoint.openDirectory()
            if descriptor >= 0 {
                syncfs(descriptor)
                close(descriptor)
            }
        }
        detach()
        var waited = 0
        while !isHurried && !transport.isOver && waited < Self.graceSeconds {
            let signal = nextSignal(seconds: 1)
            if Self.endSignals.contains(signal) { break }
            if signal == 0 { waited += 1 }
        }
        if transport.isOver { return }
        log.warning("\(mountPoint): files are still open; their users will see errors")
        server.stop()
        transport.stop()
    }

    private func detach() {
        if isUnmounting { return }
        isUnmounting = true
        DeadMount.detach(mountPoint)
    }

    // MARK: The mount in the kernel's table

    private var device: String?

    /// Notes the device of this mount. Root also lets the kernel read ahead further than by default.
    private func rememberMount() {
        guard let mounted = MountTable.mount(at: mountPoint), mounted.isTreering else { return }
        device = mounted.device
        if geteuid() == 0 {
            HostString("/sys/class/bdi/\(mounted.device)/read_ahead_kb").overwrite(
                "\(FuseServer.readAheadByteCount >> 10)\n")
        }
    }

    /// Whether the mount is still there, as it is after an abort of the connection.
    private var isStillMounted: Bool {
        guard let device, let mounted = MountTable.mount(at: mountPoint) else { return false }
        return mounted.device == device
    }
}
