// What the model expects of a read that others may come between the parts of.

@testable import Treering

/// A read that is planned and carried out in parts: each of its bytes is what was there at some moment meanwhile.
final class ReadInParts: @unchecked Sendable {
    let operation: Operation
    var states: [Outcome]

    init(_ operation: Operation, _ expected: Outcome) { (self.operation, states) = (operation, [expected]) }

    /// The first state, changed where another one explains what was read.
    func expected(for outcome: Outcome) -> Outcome {
        if case .failed = outcome, states.contains(outcome) { return outcome }
        guard case .bytes(var bytes) = states[0], case .bytes(let found) = outcome, found.count == bytes.count else {
            return states[0]
        }
        for case .bytes(let other) in states.dropFirst() {
            for index in bytes.indices where bytes[index] != found[index] {
                if (index < other.count ? other[index] : 0) == found[index] { bytes[index] = found[index] }
            }
        }
        return .bytes(bytes)
    }
}
