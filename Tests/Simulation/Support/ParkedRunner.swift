// Operations run together, each parked where it waits, as in a mount.

@testable import Treering

/// Operations that run as a server runs them: blocked ones are parked and resumed by completions and by the housekeeper.
final class ParkedRunner: @unchecked Sendable {
    private unowned let simulation: RandomSimulation
    private let volume: Volume<SimulatedDevice>
    private var pendingCount = 0

    init(_ simulation: RandomSimulation) {
        self.simulation = simulation
        volume = simulation.store.volume
    }

    func start(_ operation: Operation) {
        pendingCount += 1
        attempt(operation, operation.body(simulation.caller), nil)
    }

    private func attempt(_ operation: Operation, _ body: @escaping Operation.Body, _ attempt: Attempt?) {
        do throws(Stop) {
            let reply = try volume.run(body)
            switch reply.value {
            case .outcome(let outcome):
                simulation.finished(operation, outcome, reply)
                pendingCount -= 1
            case .plan(let plan):
                let expected = simulation.expect(operation, reply)
                let rest = plan.isWhole ? nil : simulation.beginInParts(operation, expected)
                volume.finish(plan, mayWait: simulation.generator.chance(30)) { [self] outcome in
                    if let rest {
                        simulation.end(rest, outcome)
                    } else {
                        simulation.check(operation, outcome, expected)
                    }
                    pendingCount -= 1
                }
            }
        } catch {
            switch error {
            case .failed(let errno):
                simulation.finished(operation, .failed(errno.rawValue), nil)
                pendingCount -= 1
            case .blocked(let blocker):
                simulation.count("parked")
                let box = BodyBox(body)
                volume.park(blocker, attempt, mayWait: simulation.generator.chance(30)) { [self] attempt, _ in
                    self.attempt(operation, box.body, attempt)
                }
            }
        }
    }

    /// Lets the device and the housekeeper work until all are done.
    func finish() throws {
        var idleCount = 0
        var roundCount = 0
        while pendingCount > 0 {
            if volume.device.step() {
                idleCount = 0
                continue
            }
            volume.housekeeper.housekeep()
            idleCount += 1
            roundCount += 1
            if idleCount > 200 { throw SimulationFailure("\(pendingCount) parked operations are never resumed") }
            // Each round may have done something, and all of them nothing for those who wait.
            if roundCount > 2000 {
                throw SimulationFailure("\(pendingCount) parked operations wait through \(roundCount) rounds: \(space)")
            }
        }
    }

    /// What the accounting of space says, for a failure.
    private var space: String {
        volume.state.withLock { state in
            let core = state.core
            let (space, table) = (core.log.space, core.table)
            let segments = table.segments.enumerated().filter { $0.element.state == .inUse }.map {
                "\($0.offset) \($0.element.role) live \($0.element.live) sealed \($0.element.isSealed) readers \($0.element.readerCount) stuck \($0.element.isStuck)"
            }.joined(separator: "; ")
            return
                "\(table.inUseCount) in use, \(table.pool.count) prepared of \(table.countLimit), dead \(table.deadSegmentCount), live \(table.liveByteCount) of \(space.liveByteCountLimit), dead bytes \(table.deadByteCount), reserved \(core.index.reservedByteCount), kept \(space.keptSegmentCount(.write)) \(space.keptSegmentCount(.removal)), owed \(space.owedSegmentCount), withheld \(space.withheldSegmentCount), head \(space.headOffset ?? -1), short \(space.isShort(for: .write)) \(space.isShort(for: .removal)), coming \(space.isSpaceComing), standstill \(space.writeStandstill.map { "\($0)" } ?? "-"), host full \(space.isHostFull), stuck \(space.isCheckpointStuck), removals \(core.index.removals.count), crowded \(core.crowded), read-only \(core.isOver); \(segments)"
        }
    }
}

private final class BodyBox: @unchecked Sendable {
    let body: Operation.Body
    init(_ body: @escaping Operation.Body) { self.body = body }
}
