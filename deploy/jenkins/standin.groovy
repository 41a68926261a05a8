// Runs a Jenkinsfile with stand-ins for the sections and steps that it uses. `sh` is a real shell; matrix cells run one
// after the other, each in a workspace of its own. What is not written here, such as a misspelled step, is an error.
//
//   groovy standin.groovy JENKINSFILE FOLDER NAME=VALUE…     the parameters; prints what became of the build as JSON

import groovy.json.JsonOutput

class Stopped extends RuntimeException {
    Stopped(String message) { super(message) }
}

abstract class Jenkins extends Script {
    static final List WORST = ['SUCCESS', 'UNSTABLE', 'FAILURE', 'NOT_BUILT', 'ABORTED']

    Map params = [:]
    Map given = [:]
    File folder
    String result = 'SUCCESS'
    List stagesRun = []
    List triggered = []
Map environment = [:]
List path = []
Map open
List axisValues
String axisName

    static String worse(String a, String b) { WORST.indexOf(a) >= WORST.indexOf(b) ? a : b }

    // Sections.
    def pipeline(Closure body) { body() }
    def agent(Object where) { open?.agent = true }
    def agent(Closure body) { open?.agent = true }
    String getNone() { 'none' }
    String getAny() { 'any' }
    def triggers(Closure body) { body() }
    def cron(String when) { triggered << when }
    def options(Closure body) { body() }
    def disableConcurrentBuilds() {}
    def skipDefaultCheckout() {}
    def timeout(Map limits) { assert limits.keySet() == ['time', 'unit'] as Set }
    def buildDiscarder(Map strategy) { assert strategy.numToKeepStr }
    Map logRotator(Map limits) { limits }
    def parameters(Closure body) { body() }
    def string(Map parameter) { params[parameter.name] = given.containsKey(parameter.name) ? given[parameter.name] : parameter.defaultValue }
    def text(Map parameter) { string(parameter) }
    def stages(Closure body) { open ? open.stages = body : body() }
    def when(Closure body) { open.when = body }
    def beforeAgent(boolean before) {}
    def expression(Closure condition) { open.wanted = condition() as boolean }
    def matrix(Closure body) { open.matrix = body }
    def axes(Closure body) { body() }
    def axis(Closure body) { body() }
    def name(String name) { axisName = name }
    def values(String... values) { axisValues = values as List }
    def steps(Closure body) { open.steps = body }
    def post(Closure body) { open.post = body }
    def always(Closure body) { body() }
    def script(Closure body) { body() }

    def stage(String name, Closure body) {
        def outer = open
        path << name
        open = [name: path.join(' / '), result: 'SUCCESS', wanted: true, junit: [], archived: []]
        body()
        open.when?.call()
        def stage = open
        if (!stage.wanted) {
            stagesRun << [name: stage.name, result: 'SKIPPED']
        } else if (stage.matrix) {
            stage.matrix()
            def (variable, values, cell) = [axisName, axisValues, stage.stages]
            values.each { value ->
                environment[variable] = value
                path << value
                open = null
                cell()
                path.pop()
            }
            environment.remove(variable)
        } else {
            run(stage)
        }
        path.pop()
        open = outer
    }

    void run(Map stage) {
        stage.workspace = new File(folder, stage.name.replace('/', '-'))
        stage.workspace.mkdirs()
        open = stage
        try {
            stage.steps()
        } catch (Stopped stop) {
            stage.message = stop.message
            mark('FAILURE', 'FAILURE')
        }
        stage.post?.call()
        stagesRun << stage.subMap('name', 'result', 'message', 'code', 'said', 'junit', 'archived').findAll { it.value != null }
    }

    void mark(String build, String stage) {
        result = worse(result, build)
        open.result = worse(open.result, stage)
    }

    // Steps.
    def error(String message) { throw new Stopped(message) }
    def unstable(String message) { open.message = message; mark('UNSTABLE', 'UNSTABLE') }
    def catchError(Map results, Closure body) {
        try {
            body()
        } catch (Stopped stop) {
            open.message = stop.message
            mark(results.buildResult, results.stageResult)
        }
    }
    int sh(Map step) {
        assert step.returnStatus && step.keySet() == ['returnStatus', 'label', 'script'] as Set
        def file = new File(folder, 'step.sh')
        file.text = step.script
        def builder = new ProcessBuilder('sh', '-xe', file.path).directory(open.workspace).redirectErrorStream(true)
        (params + environment).each { name, value -> builder.environment()[name] = value }
        def process = builder.start()
        process.outputStream.close()
        open.said = process.inputStream.text
        open.code = process.waitFor()
    }
List matching(String pattern) {
        assert pattern ==~ '[a-z]+/\\*\\.[a-z]+'
        def (directory, ending) = pattern.split('/\\*')
        new File(open.workspace, directory).listFiles().findAll { it.name.endsWith(ending) }*.path.sort()
    }
    def junit(Map step) {
        assert step.keySet() == ['testResults', 'allowEmptyResults', 'skipMarkingBuildUnstable'] as Set
        open.junit += matching(step.testResults)
    }
    def archiveArtifacts(Map step) {
        assert step.keySet() == ['artifacts', 'allowEmptyArchive'] as Set
        open.archived += matching(step.artifacts)
    }
}

def compiler = new org.codehaus.groovy.control.CompilerConfiguration(scriptBaseClass: Jenkins.name)
def jenkins = new GroovyShell(getClass().classLoader, new Binding(), compiler).parse(new File(args[0]))
// A script keeps what is assigned to it from outside in its binding: only setters reach the fields.
jenkins.setFolder(new File(args[1]))
jenkins.setGiven(args.drop(2).collectEntries { it.split('=', 2) as List })
jenkins.run()
println JsonOutput.toJson([result: jenkins.result, triggers: jenkins.triggered, stages: jenkins.stagesRun])
