// Scrubs in a random run: the store is whole, so that nothing may be found, whatever is done to it between two steps of the scrub.

@testable import Treering

extension Volume {
    /// A scrub to its end on this thread; `pause` runs between its steps, `afterRead` between a read and what is made of it.
    func scrub(pause: @escaping () -> Bool, afterRead: @escaping () -> Void = {}) -> (
        status: ScrubStatus, doubtCount: Int
    ) {
        state.withLock { $0.scrub = ScrubStatus(token: 1, rate: 0, now: monotonicNanoseconds()) }
        let scrub = Scrub(self) { _, _ in pause() }
        scrub.afterRead = afterRead
        scrub.run()
        return (state.withLock { $0.scrub! }, scrub.doubtCount)
    }
}

extension RandomSimulation {
    func scrub() throws {
        noteEvent("scrub")
        count("scrub")
        var error: (any Error)?
        var stepCount = 0
        // A store that is written to faster than it is read has no end.
        let share = generator.below(60)
        let step = { [unowned self] in
            stepCount += 1
            guard error == nil, stepCount < 400, !store.volume.isReadOnly, generator.chance(share) else { return }
            do {
                try runOne()
                if generator.chance(8) { try housekeep() }
                if generator.chance(40) { for _ in 0..<generator.below(4) where !store.device.step() { break } }
            } catch let failure { error = failure }
        }
        let (status, doubtCount) = store.volume.scrub {
            step()
            return error == nil
        } afterRead: { [options] in
            // Where the log fails, it is written again when the read is over, for which this thread would wait for ever.
            if options.faults == 0 { step() }
        }
        if let error { throw error }
        if doubtCount > 0 { count("scrub with doubts") }
        if let finding = status.findings.first {
            describeSegments()
            throw SimulationFailure("the scrub found \(status.findingCount) errors: \(finding)")
        }
        guard status.state == .done else { throw SimulationFailure("the scrub ended as \(status.state)") }
    }
}
