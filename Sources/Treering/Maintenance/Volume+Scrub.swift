// Begins, watches and ends a scrub, for commands and `stats`, and sets its pace.

extension Volume {
    // MARK: For commands

    /// Begins a scrub on a thread of its own and gives its token. EBUSY if one runs already or the mount ends.
    func beginScrub(rate: UInt64) throws(Errno) -> UInt64 {
        let begun = scrubGate.withLock { () -> Result<UInt64, Errno> in
            do throws(Errno) { return .success(try begin(rate)) } catch { return .failure(error) }
        }
        return try begun.get()
    }

    private func begin(_ rate: UInt64) throws(Errno) -> UInt64 {
        let token = HostStaging.randomWord()
        let now = monotonicNanoseconds()
        let refusal = state.withLock { state -> Errno? in
            if state.core.isShutDown { return .ioError }
            if state.scrub?.state == .running || state.mayNotScrub { return .busy }
            state.lastScrub = state.scrub ?? state.lastScrub
            state.scrub = ScrubStatus(token: token, rate: rate, now: now)
            return nil
        }
        if let refusal { throw refusal }
        // The scrub before has ended; only its thread may still be ending.
        scrubThread?.join()
        scrubThread = nil
        do throws(Errno) {
            scrubThread = try DeviceThread(name: "scrub") { [self] in
                let pace = ScrubPace(self, rate: rate)
                Scrub(self) { pace.goesOn(after: $0, since: $1) }.run()
            }
        } catch {
            state.withLock { $0.endScrub(.failed) }
            throw error
        }
        return token
    }

    /// The state of a scrub. Asking keeps it alive. Nil if there is no scrub with this token any more.
    func scrubStatus(_ token: UInt64) -> ScrubStatus? {
        state.withLock { state in
            guard state.scrub?.token == token else { return nil }
            state.scrub!.heard = monotonicNanoseconds()
            return state.scrub
        }
    }

    /// Asks a scrub to end. It ends before its next read.
    func cancelScrub(_ token: UInt64) {
        state.withLock { if $0.scrub?.token == token { $0.scrub!.isCancelled = true } }
    }

    /// Ends the running scrub, if any, and waits for its end. No other may begin afterwards.
    func stopScrub() {
        state.withLock { state in
            state.mayNotScrub = true
            state.scrub?.isCancelled = true
        }
        scrubThread?.join()
        scrubThread = nil
    }

    // MARK: For stats

    func scrubFigures(_ state: VolumeState) -> [Figure] {
        let running = state.scrub.flatMap { $0.state == .running ? $0 : nil }
        let last = running == nil ? state.scrub : state.lastScrub
        return [
            Figure(name: "scrub_running", help: "1 while a scrub reads what is live", value: running == nil ? 0 : 1),
            Figure(
                name: "scrub_done_bytes", help: "Bytes that the scrub that runs has verified",
                value: running?.doneByteCount ?? 0),
            Figure(
                name: "scrub_total_bytes", help: "Bytes that it will have verified in all",
                value: running?.totalByteCount ?? 0),
            Figure(name: "scrub_findings", help: "What it has found wrong", value: running?.findingCount ?? 0),
            Figure(
                name: "scrub_last_result",
                help: "The last scrub since the mount: 0 none, 1 nothing wrong, 2 damage, 3 did not come to its end",
                value: last?.result ?? 0),
            Figure(
                name: "scrub_last_findings", help: "What the last scrub found wrong", value: last?.findingCount ?? 0),
            Figure(
                name: "scrub_last_bytes", help: "Bytes that the last scrub verified", value: last?.doneByteCount ?? 0),
            Figure(
                name: "scrub_last_end_seconds", help: "When the last scrub ended, seconds since 1970",
                value: UInt64(max(0, last?.endedSeconds ?? 0))),
        ]
    }
}

/// Keeps a scrub to its rate, and out of the way of other work. Only the scrub's thread uses it.
final class ScrubPace<D: Device> {
    private unowned let volume: Volume<D>
    private let rate: UInt64
    /// When the next read may begin.
    private var next: UInt64
    private var lastWork: UInt64 = 0

    /// A rest is taken in pieces of this length, so that the scrub notices soon that it is to end.
    private static var restNanoseconds: UInt64 { 50_000_000 }

    init(_ volume: Volume<D>, rate: UInt64) {
        self.volume = volume
        self.rate = rate
        next = monotonicNanoseconds()
    }

    /// Called after a read of `byteCount` bytes that began at `start`; rests as needed. False if the scrub must end.
    func goesOn(after byteCount: Int, since start: UInt64) -> Bool {
        var now = monotonicNanoseconds()
        if rate > 0 {
            // Unused time is not saved up beyond a second, so a pause is not followed by a long burst.
            let share = UInt64(Double(byteCount) / Double(rate) * 1e9)
            next = max(next, now > 1_000_000_000 ? now - 1_000_000_000 : 0) + share
        }
        let work = volume.state.withLock { state -> UInt64 in
            let core = state.core
            let counters = core.index.tree.counters
            return counters.hitCount &+ counters.missCount &+ core.log.appendedByteCount
        }
        if work != lastWork {
            // Others work, so the scrub rests three times as long as it has read, as the cleaner does.
            lastWork = work
            next = max(next, now + min(3 * (now - min(start, now)), Self.restNanoseconds))
        }
        while true {
            let isWanted = volume.state.withLock { state -> Bool in
                guard let scrub = state.scrub, !scrub.isCancelled else { return false }
                return now <= scrub.heard || now - scrub.heard < ScrubStatus.patienceNanoseconds
            }
            guard isWanted else { return false }
            if now >= next { return true }
            rest(nanoseconds: min(next - now, Self.restNanoseconds))
            now = monotonicNanoseconds()
        }
    }
}
