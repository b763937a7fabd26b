// Holds the repository to the rules of Rules.swift. A failure names the file, the line and the rule.

import Foundation
import Testing

@Suite struct TidyTests {
    /// The repository: this file lies at Tests/TidyTests in it.
    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let paths = findPaths()
    static let files = paths.compactMap { path in
        (try? String(contentsOf: root.appending(path: path), encoding: .utf8)).map { SourceFile(path, $0) }
    }
    static var swift: [SourceFile] { files.filter { $0.isSwift && $0.path.contains("/") } }

    /// Files of the folders that belong to the repository, without what building leaves behind.
    private static func findPaths() -> [String] {
        let manager = FileManager.default
        var found: [String] = []
        for name in (try? manager.contentsOfDirectory(atPath: root.path)) ?? [] {
            if [".git", ".swiftpm"].contains(name) || name.hasPrefix(".build") { continue }
            let below = manager.enumerator(atPath: root.appending(path: name).path)
            var isDirectory = ObjCBool(false)
            guard manager.fileExists(atPath: root.appending(path: name).path, isDirectory: &isDirectory) else {
                continue
            }
            guard isDirectory.boolValue else {
                found.append(name)
                continue
            }
            for case let path as String in below! {
                _ = manager.fileExists(
                    atPath: root.appending(path: "\(name)/\(path)").path, isDirectory: &isDirectory)
                if !isDirectory.boolValue { found.append("\(name)/\(path)") }
            }
        }
        return found.sorted()
    }

    @Test func theSourcesAreFound() {
        #expect(Self.swift.count > 50)
        #expect(
            Set(Self.files.compactMap(\.layer)).isSuperset(of: [
                "Device", "FileSystem", "Format", "Index", "Maintenance", "SegmentLog", "Store", "Support",
            ]))
    }

    @Test func noFolderNamesATypeOfAHigherOne() { #expect(Rules.layering(Self.files) == []) }

    @Test func theSimulatedDeviceIsForTests() { #expect(Rules.simulation(Self.files) == []) }

    @Test func noFolderBelowTheStoreCallsUp() { #expect(Rules.callsUp(Self.files) == []) }

    @Test func theKernelsInterfacesAreSpokenInOneFolderEach() { #expect(Rules.kernelNames(Self.files) == []) }

    @Test func librariesAreImportedWhereTheyBelong() { #expect(Rules.imports(Self.files) == []) }

    @Test func nobodyWaitsByTheTimeOfDay() { #expect(Rules.clocks(Self.files) == []) }

    @Test func segmentsAreKnownByTheirLives() { #expect(Rules.segmentNumbers(Self.swift) == []) }

    @Test func pathsAreBytes() { #expect(Rules.paths(Self.files) == []) }

    @Test func nothingTravelsWithAThread() { #expect(Rules.threadLocals(Self.files) == []) }

    @Test func offsetsOnDiskAreNamed() { #expect(Rules.offsets(Self.files) == []) }

    @Test func noFolderHasTooManyFiles() { #expect(Rules.folderSize(Self.files) == []) }

    @Test func noFileIsTooLong() { #expect(Rules.fileLength(Self.files.filter { $0.isSwift || $0.isScript }) == []) }

    @Test func noLineOfAScriptIsTooLong() {
        #expect(Self.files.count(where: \.isScript) > 50)
        #expect(Rules.lineLength(Self.files.filter(\.isScript)) == [])
    }

    @Test func everyScriptSaysWhatItDoes() { #expect(Rules.scriptHead(Self.files.filter(\.isScript)) == []) }

    @Test func noFunctionIsTooLong() { #expect(Rules.functionLength(Self.swift) == []) }

    @Test func everyFileSaysWhatItIs() { #expect(Rules.headComment(Self.swift) == []) }

    @Test func noPathOfADevelopersMachine() { #expect(Rules.developerPaths(Self.files) == []) }

    @Test func moduleMapsStandAlone() { #expect(Rules.moduleMaps(Self.paths) == []) }
}
