// When a serving process that dies is started again, and what ps(1) shows of its parent.

import Glibc
import Testing

@testable import Treering

@Suite struct SupervisorTests {
    @Test func firstDeathsAreAnsweredAtOnceThenWithPausesThenNoMore() {
        var policy = RestartPolicy()
        var mayRestart = false
        var pauses: [Int] = []
        for death in 0..<10 {
            mayRestart = policy.mayRestart(at: Double(death))
            #expect(mayRestart)
            pauses.append(policy.pauseMilliseconds)
        }
        #expect(pauses == [0, 0, 0, 50, 100, 200, 400, 800, 1600, 1600])
        mayRestart = policy.mayRestart(at: 10)
        #expect(!mayRestart)
    }

    @Test func aDeathNowAndThenIsNeverTooMuch() {
        var policy = RestartPolicy()
        var mayRestart = false
        for death in 0..<1000 {
            mayRestart = policy.mayRestart(at: Double(death) * 30)
            #expect(mayRestart)
            #expect(policy.pauseMilliseconds == 0)
        }
    }

    @Test func aBurstIsForgottenAfterTheWindow() {
        var policy = RestartPolicy()
        var mayRestart = false
        for _ in 0..<10 {
            mayRestart = policy.mayRestart(at: 5)
            #expect(mayRestart)
        }
        mayRestart = policy.mayRestart(at: 5 + policy.windowSeconds)
        #expect(mayRestart)
        #expect(policy.pauseMilliseconds == 0)
    }

    @Test func theTitleIsShownCutToItsRoomAndTakenBack() throws {
        let before = try #require(HostString("/proc/self/cmdline").text())
        let title = try #require(ProcessTitle("a title\(String(repeating: ".", count: 1 << 16))"))
        let shown = try #require(HostString("/proc/self/cmdline").text())
        #expect(shown.hasPrefix("a title") && shown.utf8.count <= before.utf8.count)
        title.restore()
        #expect(HostString("/proc/self/cmdline").text() == before)
    }

    @Test func whatIsNotMountedIsNotDead() {
        #expect(!DeadMount.isDead("/"))
        #expect(!DeadMount.isDead("/proc"))
        #expect(!DeadMount.isDead("/no/such/place"))
        #expect(DeadMount.clear("/proc") == 0)
        #expect(DeadMount.path("/proc/./") == "/proc")
    }
}
